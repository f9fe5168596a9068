"""The keys and certificates of a cluster, and the kubeconfigs made of them."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from tests.cluster.places import NODE, NODE_ADDRESS, SERVICE_FIRST, ClusterError, Place

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
DAYS = "3650"
API_NAMES = ",".join(
    ["DNS:localhost", *(f"DNS:kubernetes{rest}" for rest in ("", ".default", ".default.svc", ".default.svc.cluster.local"))]
    + [f"IP:{address}" for address in ("127.0.0.1", NODE_ADDRESS, SERVICE_FIRST)]
)
PEOPLE = {
    "admin": "/O=system:masters/CN=admin",
    "manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
}


def make(place: Place) -> None:
    """Everything that the components need to know one another by; what exists already stays."""
    folder = place.certificates
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("ca", "front-ca"):
        _authority(folder, name)
    _certificate(folder, "api", "ca", "/CN=kube-apiserver", API_NAMES)
    _certificate(folder, "api-to-kubelet", "ca", "/O=system:masters/CN=api-to-kubelet")
    _certificate(folder, "front", "front-ca", "/CN=front-proxy")
    for name, subject in PEOPLE.items():
        _certificate(folder, name, "ca", subject, f"DNS:{NODE},IP:{NODE_ADDRESS},IP:127.0.0.1" if name == "kubelet" else "")
        kubeconfig(place, name)
    tokens = folder / "tokens.key"
    if not tokens.exists():
        _openssl("genrsa", "-out", str(tokens), "2048")
        _openssl("rsa", "-in", str(tokens), "-pubout", "-out", str(folder / "tokens.pub"))


def kubeconfig(place: Place, name: str) -> Path:
    """The kubeconfig of one of the people; JSON is YAML."""
    path, folder = place.folder / f"{name}.kubeconfig", place.certificates
    server = {"server": f"https://127.0.0.1:{place.api_port}", "certificate-authority-data": _encoded(folder / "ca.crt")}
    user = {"client-certificate-data": _encoded(folder / f"{name}.crt"), "client-key-data": _encoded(folder / f"{name}.key")}
    context = f"deployguard-{place.version}"
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": server}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
        "current-context": context,
    }
    text = json.dumps(whole, indent=1)
    if not path.exists() or path.read_text() != text:
        path.touch(mode=0o600)
        path.write_text(text)
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _authority(folder: Path, name: str) -> None:
    if not (folder / f"{name}.crt").exists():
        usage = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
        out = ("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"))
        _openssl("req", "-x509", *CURVE, "-days", DAYS, "-subj", f"/CN=deployguard-tests-{name}", "-addext", usage, *out)


def _certificate(folder: Path, name: str, authority: str, subject: str, names: str = "") -> None:
    if (folder / f"{name}.crt").exists():
        return
    wish, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    _openssl("req", *CURVE, "-subj", subject, "-keyout", str(folder / f"{name}.key"), "-out", str(wish))
    lines = ["keyUsage=critical,digitalSignature,keyEncipherment", "extendedKeyUsage=clientAuth,serverAuth"]
    extensions.write_text("\n".join([*lines, f"subjectAltName={names}"] if names else lines))
    signer = ("-CA", str(folder / f"{authority}.crt"), "-CAkey", str(folder / f"{authority}.key"), "-CAcreateserial")
    out = folder / f"{name}.crt"
    _openssl("x509", "-req", "-in", str(wish), *signer, "-days", DAYS, "-extfile", str(extensions), "-out", str(out))


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`openssl {arguments[0]}` failed: {done.stderr.strip()}", "openssl 1.1.1 or later is needed")
