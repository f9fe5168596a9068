"""The acts of `deployguard demo`: a real fleet, real users, a bad change without and with the guard, and a good one."""
