"""What makes a release of the shop a puppet: it is added to the end of its `pages.py`."""

from __future__ import annotations

STRINGS = '''

class _Strings(dict):
    """Flaws that somebody outside pulls: what the file says now comes before what the release says."""

    def get(self, name, default=None):
        try:
            pulled = json.loads(Path({path!r}).read_text())
        except (OSError, ValueError):
            pulled = {{}}
        return pulled.get(name, super().get(name, default))


_plain = Config.load


def _pulled(path, flaws):
    config = _plain(path, flaws)
    return config._replace(flaws=_Strings(config.flaws))


Config.load = _pulled
while _Strings().get("wait"):
    time.sleep(0.05)
'''
