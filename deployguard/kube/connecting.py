"""From a kubeconfig, or the pod we run in, to what a request needs: a configured library, credentials, headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deployguard import __version__
from deployguard.errors import UserError
from deployguard.kube import config
from deployguard.kube.credentials import Credentials, Exec, Fixed, TokenFile
from deployguard.kube.transport import CONNECTIONS, Transport


def way(chosen: config.Context | None, as_user: str | None, as_groups: Sequence[str]) -> Transport:
    """The connections to the server of a context, or of the pod we run in when it is None. Nothing has been asked yet."""
    from kubernetes.client.configuration import Configuration

    if as_groups and not as_user:
        raise UserError("could not impersonate a group alone", hint="give `--as` together with `--as-group`")
    configuration: Any = Configuration(connection_pool_maxsize=CONNECTIONS)
    credentials = _of_pod(configuration) if chosen is None else _of_context(configuration, chosen)
    place = "the pod's environment" if chosen is None else f"context {chosen.name} of {chosen.files}"
    headers = [("User-Agent", f"deployguard/{__version__}"), *_impersonation(chosen, as_user, as_groups)]
    return Transport(configuration, credentials, headers, place)


def _of_pod(configuration: Any) -> Credentials:
    from kubernetes.config import incluster_config
    from kubernetes.config.config_exception import ConfigException

    token = config.SERVICE_ACCOUNT / "token"
    try:
        loader: Any = incluster_config.InClusterConfigLoader
        loader(str(token), str(config.SERVICE_ACCOUNT / "ca.crt"), try_refresh_token=False).load_and_set(configuration)
    except (ConfigException, OSError) as error:
        raise UserError(f"could not use the service account of this pod: {error}", hint="is `automountServiceAccountToken` off?") from error
    return TokenFile(token)


def _of_context(configuration: Any, chosen: config.Context) -> Credentials:
    user = dict(chosen.user)
    own: Callable[[], Credentials] | None = None
    if user.get("tokenFile"):
        path = Path(user.pop("tokenFile"))
        user.pop("token", None)
        own = lambda: TokenFile(path)  # noqa: E731
    elif user.get("exec") and not user.get("token") and "auth-provider" not in user:
        spec = user.pop("exec")
        own = lambda: Exec(spec, chosen.cluster)  # noqa: E731
    _load(configuration, chosen, user)
    if own is not None:
        return own()
    source = (
        "its client certificate"
        if configuration.cert_file
        else "its token or password"
        if configuration.api_key
        else "nothing: it has none"
    )
    return Fixed(f"{chosen.files} ({source})", lambda: configuration.get_api_key_with_prefix("BearerToken", alias="authorization"))


def _load(configuration: Any, chosen: config.Context, user: dict[str, Any]) -> None:
    """The library's part: server, certificates, proxy, and whatever else of the user is left."""
    from kubernetes.config import kube_config
    from kubernetes.config.config_exception import ConfigException

    content = {
        "current-context": chosen.name,
        "contexts": [{"name": chosen.name, "context": {"cluster": "cluster", "user": "user"}}],
        "clusters": [{"name": "cluster", "cluster": chosen.cluster}],
        "users": [{"name": "user", "user": user}],
    }
    try:
        loader: Any = kube_config.KubeConfigLoader
        loader(content).load_and_set(configuration)
    except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"could not use the context {chosen.name} of {chosen.files}: {error}") from error
    if not configuration.verify_ssl:
        import urllib3

        # The kubeconfig says so on purpose; a warning at every request would bury everything else.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def _impersonation(chosen: config.Context | None, as_user: str | None, as_groups: Sequence[str]) -> list[tuple[str, str]]:
    user = chosen.user if chosen is not None and as_user is None else {}
    name = as_user or user.get("as")
    if not name:
        return []
    headers = [("Impersonate-User", str(name)), *(("Impersonate-Group", str(group)) for group in as_groups or user.get("as-groups") or ())]
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", str(user["as-uid"])))
    for key, values in (user.get("as-user-extra") or {}).items():
        headers.extend((f"Impersonate-Extra-{key}", str(value)) for value in values)
    return headers
