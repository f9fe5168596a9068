"""Lets the supervisor start the balancer as a module."""

from __future__ import annotations

import sys

from deployguard.local.balancer.process import main

sys.exit(main())
