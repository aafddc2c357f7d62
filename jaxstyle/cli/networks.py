"""`jaxstyle networks`: installed networks with their paths and hashes."""

from dataclasses import dataclass

from jaxstyle.cli.signals import check


@dataclass(frozen=True)
class Networks:
    """List the installed networks in the order in which --network auto chooses."""

    def run(self) -> int:
        """Print the list and return the exit status."""
        from jaxstyle.networks import pretrained, weights_io

        for found in pretrained.installed():
            check()
            print(f"{found.network:8} {found.origin}")
            if found.path:
                weights_io.widths(found.path)  # raises for a missing or damaged file
                print(f"{'':8} sha256 {found.sha256}")
                for key, text in weights_io.provenance(found.path).items():
                    print(f"{'':8} {key} {text}")
        return 0
