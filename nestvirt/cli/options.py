"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FILE, DIRECTORY = click.Path(), click.Path(file_okay=False)  # for completion; what is there is checked later

timeout_option = click.option(
    "--timeout",
    type=click.IntRange(1, 86400),
    default=120,
    show_default=True,
    metavar="S",
    help="Seconds for each wait: the guest's shutdown, its start, its first answer.",
)
root_option = click.option(
    "--root",
    type=DIRECTORY,
    metavar="DIR",
    help="Judge a saved machine: its / is DIR.",
)


FORMS = ("text", "json", "jsonl", "junit", "html", "nagios")
"""How a report can be had, of one target or of many."""


def _output(*forms: str) -> list[Callable[[F], F]]:
    return [
        click.option(
            "-o",
            "--output",
            type=click.Choice(forms),
            default="text",
            show_default=True,
            help="How to report on stdout.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    ]


output_options = _output(*FORMS)
listing_output_options = _output("text", "json", "jsonl", "html")


class Naming(NamedTuple):
    """How a thing of a backend is named on the command line.

    Attributes:
        alone: what the option means without a value; None where it needs one.
    """

    metavar: str
    help: str
    example: str
    alone: str | None = None


VMS: dict[str, Naming] = {
    "libvirt": Naming("NAME", "A libvirt VM: its name, UUID, or id.", "web-01"),
    "proxmox": Naming("ID", "A Proxmox VM: its id or name.", "100"),
    "vsphere": Naming("VM", "A vSphere VM: its name, inventory path, UUID, or managed object id.", "web-01"),
    "hyperv": Naming("NAME", "A Hyper-V VM: its name or id.", "web-01"),
    "vmx": Naming("PATH", "A VM of VMware Workstation or Fusion: its .vmx file, or folder.", "vm.vmx"),
    "vagrant": Naming("DIR", "A VM that Vagrant has made: the folder of its Vagrantfile.", "."),
    "host": Naming(
        "[WHERE]", "A host itself: local (without a value), or ssh://USER@HOST.", "local", "local"
    ),
}
"""Backend to its option. One line adds a hypervisor."""

VM_FORMS = " or ".join(f"--{backend} {of.metavar}" for backend, of in VMS.items())
VM_EXAMPLES = " or ".join(f"--{backend} {of.example}" for backend, of in VMS.items())

ENDPOINT = (
    "connect",
    "username",
    "transport",
    "ca-file",
    "fingerprint",
    "insecure",
    "node-ssh",
    "guest-username",
)
"""The options that are settings of a backend; settings.SETTINGS says of which."""

endpoint_options = [
    click.option(
        "--connect",
        metavar="URI",
        help="Where the hypervisor is: libvirt's URI, Proxmox's https://NODE:8006, ssh://root@NODE or local, "
        "vSphere's https://VCENTER, Hyper-V's https://HOST [from the environment or the configuration file].",
    ),
    click.option(
        "--username",
        metavar="NAME",
        help="Proxmox, vSphere, Hyper-V: who logs in, as USER@REALM, user@DOMAIN or DOMAIN\\user.",
    ),
    click.option(
        "--transport",
        type=click.Choice(("ntlm", "kerberos", "credssp", "certificate", "basic"), case_sensitive=False),
        help="Hyper-V: how to log in to WinRM  [default: ntlm].",
    ),
    click.option(
        "--ca-file",
        type=FILE,
        metavar="FILE",
        help="Proxmox, vSphere, Hyper-V: the CA of the server's certificate.",
    ),
    click.option(
        "--fingerprint", metavar="SHA256", help="Proxmox, vSphere, Hyper-V: the server's own certificate."
    ),
    click.option("--insecure", is_flag=True, help="Do not verify the server's TLS certificate."),
    click.option(
        "--node-ssh",
        metavar="USER@HOST",
        help="Read the node's kvm module over SSH, where the API cannot tell whether nesting is on.",
    ),
    click.option(
        "--guest-username",
        metavar="NAME",
        help="The guest's user, as whom VMware Tools run the probe inside, or PowerShell Direct looks.",
    ),
]


with_host_options = [
    click.option(
        "--with-host",
        metavar="[WHERE]",
        is_flag=False,
        flag_value="auto",  # AUTO of backends, which takes its time to import
        help="Let the VM's host nest, too: where the connection says (without a value), or ssh://USER@HOST.",
    ),
]
drain_options = [
    click.option(
        "--drain",
        metavar="NAME",
        multiple=True,
        help="A VM on the host to shut down, and start again, so that the kvm module can be loaded anew.",
    ),
]


def _naming(backend: str, of: Naming, text: str) -> Callable[[F], F]:
    optional: dict[str, Any] = {} if of.alone is None else {"is_flag": False, "flag_value": of.alone}
    return click.option(f"--{backend}", metavar=of.metavar, help=text, **optional)


machine_option = click.option(
    "--machine", metavar="NAME", help="Vagrant: which machine, where the Vagrantfile has more than one."
)
vm_options = [*(_naming(backend, of, of.help) for backend, of in VMS.items()), machine_option]
run_options = [
    _naming(backend, of, f"Only the runs of this {'host' if backend == 'host' else 'VM'}.")
    for backend, of in VMS.items()
] + [machine_option]
target_options = [
    *vm_options,
    endpoint_options[0],
    click.option("--profile", metavar="NAME", help="A profile of the configuration file."),
    *endpoint_options[1:],
]
guest_options = [
    click.option("--ssh", metavar="USER@HOST", help="Look inside the guest over SSH instead of its agent."),
    click.option("--ssh-config", type=FILE, metavar="FILE", help="ssh_config to use with --ssh."),
    click.option("--load-modules", is_flag=True, help="Load the kvm module where it is not loaded."),
    timeout_option,
]
change_options = [
    click.option("--dry-run", is_flag=True, help="Show what would be done; touch nothing."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("--no-restart", is_flag=True, help="Write the setting, and leave the running VM as it is."),
    click.option(
        "--force-off", is_flag=True, help="Cut the power where the guest does not shut down in time."
    ),
]


def named(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """The backend and the VM that a command's options name; None where they name none.

    Raises:
        UsageError: they name more than one.
    """
    vms = [(backend, str(options[backend])) for backend in VMS if options[backend] is not None]
    empty = [f"--{backend}" for backend, name in vms if not name.strip()]
    if empty:
        raise click.UsageError(f"{', '.join(empty)} was given an empty name; is a variable not set?")
    if len(vms) > 1:
        raise click.UsageError(f"One VM at a time: name it with {VM_FORMS}.")
    if options["machine"] is not None and options["vagrant"] is None:
        raise click.UsageError("--machine goes with --vagrant DIR.")
    if options["vagrant"] is not None:
        from nestvirt.backends.vagrant.project import target_name  # when it is used, as a backend is

        return "vagrant", target_name(options["vagrant"], options["machine"])
    if options["vmx"] is not None:
        from nestvirt.backends.workstation.vmfile import target_name as vmx_name

        return "vmx", vmx_name(options["vmx"])
    return vms[0] if vms else None


def words_for(backend: str, name: str) -> list[str]:
    """The options that name a VM, from its target's backend and name: the opposite of ``named``."""
    if backend == "vagrant":
        from nestvirt.backends.vagrant.project import folder_and_machine

        folder, machine = folder_and_machine(name)
        return ["--vagrant", str(folder), *(["--machine", machine] if machine else [])]
    return [f"--{backend}", name]


def given(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Those of the options that were given, with their value; a flag's is "true"."""
    values = {name: options[name.replace("-", "_")] for name in names}
    return {name: "true" if value is True else str(value) for name, value in values.items() if value}


def with_options(*groups: list[Callable[[F], F]]) -> Callable[[F], F]:
    """Give a command groups of options, in that order."""

    def decorate(function: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate
