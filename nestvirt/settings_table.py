"""Which settings each backend can be given, and what each is called in the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """One setting that a backend can be given.

    Attributes:
        variables: environment variables in order of precedence: ours first, then those of other programs.
        default: the built-in value; None where there is none.
        option: the name of the command line's option for it, without dashes; None for none.
        secret: whether it is kept from sight. It has no option, as everybody sees a process's arguments.
        kind: what it is. The file may have numbers and booleans as such; a backend gets text, and a path
            that holds in any folder, as it is recorded.
        negates: the setting of which this one says the opposite.
        several: whether it may be a list, as PATH is one.
        userinfo: whether the address may have a user and password in it, ``user:password@host``; they count
            as settings of the same source.
    """

    name: str
    variables: tuple[str, ...]
    default: str | None = None
    option: str | None = None
    secret: bool = False
    kind: type[str] | type[int] | type[bool] | type[Path] = str
    negates: str | None = None
    several: bool = False
    userinfo: bool = False


# Other programs' variables: LIBVIRT_DEFAULT_URI is libvirt's own (https://libvirt.org/uri.html), PROXMOX_VE_*
# are those of Terraform's and OpenTofu's bpg/proxmox, PROXMOX_* those of Ansible's community.proxmox.
# VSPHERE_* are those of Terraform's vsphere, GOVC_* govc's, VMWARE_* those of Ansible's community.vmware.
# HYPERV_* are those of Terraform's taliesins/hyperv.
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "libvirt": (
        Setting("uri", ("NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI"), "qemu:///system", option="connect"),
    ),
    "vagrant": (
        Setting(
            "uri",
            ("NESTVIRT_VAGRANT_URI", "NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI"),
            "qemu:///system",
            option="connect",
        ),
    ),
    "host": (Setting("ssh_config", ("NESTVIRT_HOST_SSH_CONFIG",), kind=Path),),
    "proxmox": (
        Setting(
            "endpoint",
            ("NESTVIRT_PROXMOX_ENDPOINT", "PROXMOX_VE_ENDPOINT", "PROXMOX_URL", "PROXMOX_HOST"),
            option="connect",
        ),
        Setting("port", ("NESTVIRT_PROXMOX_PORT", "PROXMOX_PORT"), kind=int),
        Setting(
            "username",
            ("NESTVIRT_PROXMOX_USERNAME", "PROXMOX_VE_USERNAME", "PROXMOX_USER"),
            option="username",
        ),
        Setting(
            "password",
            ("NESTVIRT_PROXMOX_PASSWORD", "PROXMOX_VE_PASSWORD", "PROXMOX_PASSWORD"),
            secret=True,
        ),
        Setting("api_token", ("NESTVIRT_PROXMOX_API_TOKEN", "PROXMOX_VE_API_TOKEN"), secret=True),
        Setting("token_id", ("NESTVIRT_PROXMOX_TOKEN_ID", "PROXMOX_TOKEN_ID")),
        Setting("token_secret", ("NESTVIRT_PROXMOX_TOKEN_SECRET", "PROXMOX_TOKEN_SECRET"), secret=True),
        Setting("ca_file", ("NESTVIRT_PROXMOX_CA_FILE", "PROXMOX_CA_PATH"), option="ca-file", kind=Path),
        Setting("fingerprint", ("NESTVIRT_PROXMOX_FINGERPRINT",), option="fingerprint"),
        Setting(
            "insecure", ("NESTVIRT_PROXMOX_INSECURE", "PROXMOX_VE_INSECURE"), option="insecure", kind=bool
        ),
        Setting(
            "validate_certs", ("PROXMOX_VALIDATE_CERTS", "PROXMOX_VERIFY_SSL"), kind=bool, negates="insecure"
        ),
        Setting("node_ssh", ("NESTVIRT_PROXMOX_NODE_SSH",), option="node-ssh"),
        Setting("ssh_config", ("NESTVIRT_PROXMOX_SSH_CONFIG",), kind=Path),
    ),
    "vsphere": (
        Setting(
            "endpoint",
            ("NESTVIRT_VSPHERE_ENDPOINT", "VSPHERE_SERVER", "GOVC_URL", "VMWARE_HOST"),
            option="connect",
            userinfo=True,
        ),
        Setting("port", ("NESTVIRT_VSPHERE_PORT", "VMWARE_PORT"), kind=int),
        Setting(
            "username",
            ("NESTVIRT_VSPHERE_USERNAME", "VSPHERE_USER", "GOVC_USERNAME", "VMWARE_USER"),
            option="username",
        ),
        Setting(
            "password",
            ("NESTVIRT_VSPHERE_PASSWORD", "VSPHERE_PASSWORD", "GOVC_PASSWORD", "VMWARE_PASSWORD"),
            secret=True,
        ),
        Setting(
            "ca_file",
            ("NESTVIRT_VSPHERE_CA_FILE", "GOVC_TLS_CA_CERTS"),
            option="ca-file",
            kind=Path,
            several=True,
        ),
        Setting("fingerprint", ("NESTVIRT_VSPHERE_FINGERPRINT", "GOVC_THUMBPRINT"), option="fingerprint"),
        Setting("known_hosts", ("NESTVIRT_VSPHERE_KNOWN_HOSTS", "GOVC_TLS_KNOWN_HOSTS"), kind=Path),
        Setting(
            "insecure",
            ("NESTVIRT_VSPHERE_INSECURE", "VSPHERE_ALLOW_UNVERIFIED_SSL", "GOVC_INSECURE"),
            option="insecure",
            kind=bool,
        ),
        Setting("validate_certs", ("VMWARE_VALIDATE_CERTS",), kind=bool, negates="insecure"),
        Setting("guest_username", ("NESTVIRT_VSPHERE_GUEST_USERNAME",), option="guest-username"),
        Setting("guest_password", ("NESTVIRT_VSPHERE_GUEST_PASSWORD",), secret=True),
        Setting("guest_login", ("NESTVIRT_VSPHERE_GUEST_LOGIN", "GOVC_GUEST_LOGIN"), secret=True),
    ),
    "hyperv": (
        Setting("endpoint", ("NESTVIRT_HYPERV_ENDPOINT", "HYPERV_HOST"), option="connect"),
        Setting("port", ("NESTVIRT_HYPERV_PORT", "HYPERV_PORT"), kind=int),
        Setting("plain_http", ("NESTVIRT_HYPERV_PLAIN_HTTP",), kind=bool),
        Setting("https", ("HYPERV_HTTPS",), kind=bool, negates="plain_http"),
        Setting("username", ("NESTVIRT_HYPERV_USERNAME", "HYPERV_USER"), option="username"),
        Setting("password", ("NESTVIRT_HYPERV_PASSWORD", "HYPERV_PASSWORD"), secret=True),
        Setting("transport", ("NESTVIRT_HYPERV_TRANSPORT",), option="transport"),
        Setting("basic", ("NESTVIRT_HYPERV_BASIC",), kind=bool),
        Setting("use_ntlm", ("HYPERV_USE_NTLM",), kind=bool, negates="basic"),
        Setting("ca_file", ("NESTVIRT_HYPERV_CA_FILE", "HYPERV_CACERT_PATH"), option="ca-file", kind=Path),
        Setting("fingerprint", ("NESTVIRT_HYPERV_FINGERPRINT",), option="fingerprint"),
        Setting("insecure", ("NESTVIRT_HYPERV_INSECURE", "HYPERV_INSECURE"), option="insecure", kind=bool),
        Setting("cert_file", ("NESTVIRT_HYPERV_CERT_FILE", "HYPERV_CERT_PATH"), kind=Path),
        Setting("key_file", ("NESTVIRT_HYPERV_KEY_FILE", "HYPERV_KEY_PATH"), kind=Path),
        Setting("guest_username", ("NESTVIRT_HYPERV_GUEST_USERNAME",), option="guest-username"),
        Setting("guest_password", ("NESTVIRT_HYPERV_GUEST_PASSWORD",), secret=True),
    ),
    "vmx": (
        Setting("vmrun", ("NESTVIRT_VMX_VMRUN",), kind=Path),
        Setting("product", ("NESTVIRT_VMX_PRODUCT",)),
    ),
}
"""What each backend can be given; its first setting is where the hypervisor is."""

CREDENTIALS: dict[str, tuple[tuple[str, ...], ...]] = {
    "proxmox": (("api_token",), ("token_id", "token_secret"), ("password",)),
    "vsphere": (("password",),),
    "hyperv": (("password",),),
}
"""The ways to say who one is, each the settings that it takes all of; of one source, the first counts."""

WITHOUT_PASSWORD = ("kerberos", "certificate")
"""The transports of WinRM that take none; so none is asked for."""

ENCRYPTING = ("hyperv",)
"""Those to which secrets may go without TLS: their messages are encrypted by themselves, or not sent."""

GUEST_CREDENTIALS: dict[str, tuple[str, str]] = dict.fromkeys(
    ("vsphere", "hyperv"), ("guest_username", "guest_password")
)
"""Who one is inside the guests, where the way in goes through the hypervisor and asks for it."""
