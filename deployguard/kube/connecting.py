"""From a context to what a request needs: connections, credentials, headers.

The official library is asked only for what it alone knows (`auth-provider`, and which hosts go past a proxy): importing it
takes longer than everything else of a short command together.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployguard import __version__
from deployguard.errors import UserError
from deployguard.kube.config import Context
from deployguard.kube.credentials import Certificates, Credentials, Exec, Fixed, Pem, TokenFile, Tokens, content
from deployguard.kube.transport import Transport

CONNECTIONS = 32


def way(chosen: Context, as_user: str | None, as_groups: Sequence[str]) -> Transport:
    """The connections to the server of a context. Nothing has been asked yet. Raises `UserError`."""
    if as_groups and not as_user:
        raise UserError("could not impersonate a group alone", hint="give `--as` together with `--as-group`")
    headers = [("User-Agent", f"deployguard/{__version__}"), *_impersonation(chosen.user, as_user, as_groups)]
    credentials = Credentials(_tokens(chosen), Certificates(chosen.user))
    return Transport(str(chosen.cluster["server"]).rstrip("/"), _connections(chosen), credentials, headers, chosen.place)


def _tokens(chosen: Context) -> Tokens:
    """What proves who we are, in the order in which kubectl looks."""
    user = chosen.user
    if user.get("auth-provider"):
        return Fixed(f"the auth-provider in {chosen.files}", _provided(chosen))
    if user.get("tokenFile"):
        return TokenFile(Path(user["tokenFile"]))
    if user.get("token"):
        return Fixed(f"the token in {chosen.files}", lambda: f"Bearer {user['token']}")
    if user.get("exec"):
        return Exec(user["exec"], chosen.cluster)
    if user.get("username") and user.get("password"):
        pair = base64.b64encode(f"{user['username']}:{user['password']}".encode()).decode()
        return Fixed(f"user name and password in {chosen.files}", lambda: f"Basic {pair}")
    return Fixed(f"the client certificate in {chosen.files}", lambda: "")


def _provided(chosen: Context) -> Callable[[], str | None]:
    """The library's own way with the providers of old, which it also renews."""
    from kubernetes.client.configuration import Configuration
    from kubernetes.config import kube_config
    from kubernetes.config.config_exception import ConfigException

    configuration: Any = Configuration()
    loader: Any = kube_config.KubeConfigLoader
    config = {
        "current-context": "context",
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "clusters": [{"name": "cluster", "cluster": chosen.cluster}],
        "users": [{"name": "user", "user": {"auth-provider": chosen.user["auth-provider"]}}],
    }
    try:
        loader(config).load_and_set(configuration)
    except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"could not use the auth-provider of {chosen.place}: {error}", hint="log in anew, or use an `exec` program"
        ) from error
    return lambda: configuration.get_api_key_with_prefix("BearerToken", alias="authorization")


def _connections(chosen: Context) -> Callable[[Pem | None], Any]:
    """Makes the connections for a client certificate. The server's own certificates are read here, once."""
    cluster, server = chosen.cluster, str(chosen.cluster["server"])
    authority = content(cluster, "certificate-authority").decode("ascii", "replace")
    name = cluster.get("tls-server-name")
    proxy = _proxy(cluster, server)

    def make(pem: Pem | None) -> Any:
        import urllib3

        options: dict[str, Any] = {"maxsize": CONNECTIONS, "retries": False}
        if server.startswith("https"):
            options["ssl_context"] = _trust(authority, pem, insecure=bool(cluster.get("insecure-skip-tls-verify")), place=chosen.place)
            options |= {"server_hostname": name} if name else {}
        if not proxy:
            return urllib3.PoolManager(**options)
        if proxy.startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager

            return SOCKSProxyManager(proxy, **options)
        return urllib3.ProxyManager(proxy, **options)

    return make


def _trust(authority: str, pem: Pem | None, *, insecure: bool, place: str) -> ssl.SSLContext:
    from urllib3.util.ssl_ import create_urllib3_context

    context: ssl.SSLContext = create_urllib3_context(cert_reqs=ssl.CERT_NONE if insecure else ssl.CERT_REQUIRED)
    # Since Python 3.13 strict checking is on, which authorities of many clusters do not pass; no other client insists on it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        if insecure:
            import urllib3

            # The kubeconfig says so on purpose; a warning at every request would bury everything else.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        elif authority:
            context.load_verify_locations(cadata=authority)
        else:
            context.load_default_certs()
        if pem is not None:
            _load(context, pem)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UserError(f"could not use the certificates of {place}: {error}", hint="look at the kubeconfig, or log in anew") from error
    return context


def _load(context: ssl.SSLContext, pem: Pem) -> None:
    """The context has the certificate, which `ssl` takes from files alone; they are gone again at once."""
    with tempfile.TemporaryDirectory(prefix="deployguard-") as folder:
        path = Path(folder) / "client.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(pem.certificate.rstrip() + b"\n" + pem.key)
        context.load_cert_chain(path)


def _proxy(cluster: dict[str, Any], server: str) -> str:
    """The proxy on the way to the server: the kubeconfig's, else the environment's unless it exempts the host; empty for none."""
    if cluster.get("proxy-url"):
        return str(cluster["proxy-url"])
    scheme = urlsplit(server).scheme
    names = [f"{scheme}_proxy", "all_proxy"]
    found = next((value for name in names for value in (os.environ.get(name), os.environ.get(name.upper())) if value), "")
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if found and exempt:
        from kubernetes.client import rest

        bypass: Any = rest.should_bypass_proxies
        return "" if bypass(server, exempt) else found
    return found


def _impersonation(user: dict[str, Any], as_user: str | None, as_groups: Sequence[str]) -> list[tuple[str, str]]:
    said = {} if as_user is not None else user
    name = as_user or said.get("as")
    if not name:
        return []
    headers = [("Impersonate-User", str(name)), *(("Impersonate-Group", str(group)) for group in as_groups or said.get("as-groups") or ())]
    if said.get("as-uid"):
        headers.append(("Impersonate-Uid", str(said["as-uid"])))
    for key, values in (said.get("as-user-extra") or {}).items():
        headers.extend((f"Impersonate-Extra-{key}", str(value)) for value in values)
    return headers
