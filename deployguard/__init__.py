"""deployguard: guards a change and puts the last stable version back when the change makes things worse."""

__version__ = "0.1.0"
