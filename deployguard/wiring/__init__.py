"""The composition roots: the only places that name adapters.

`guard` builds what drives a real guard, `scenario` what plays a scenario on a simulated clock.
"""
