"""Where state is kept: the document, the ledger, the inbox, the readings log and the stop switch of each guard.

One file a thing. Everything that touches the disk goes through `disk`, so that crashes, full disks and missing
permissions are handled in one place.
"""
