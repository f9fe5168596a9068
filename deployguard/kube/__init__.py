"""The cluster: raw JSON over the official client, which nothing else imports."""
