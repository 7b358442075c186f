"""The rooms opened for one workspace: registry, pseudonym key, activation folder; every flow starts here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from continual.domain.errors import NotFoundError
from continual.settings import Settings, create_workspace, load_settings, pseudonym_key, require_workspace
from registry import Registry, open_registry


@dataclass(frozen=True, slots=True)
class Workplace:
    """An open workspace. `key` is the secret that pseudonyms are keyed with."""

    settings: Settings
    registry: Registry
    key: bytes

    @property
    def actor(self) -> str:
        """Who is written beside each change."""
        return self.settings.actor


@contextmanager
def open_workplace(workspace: str | Path, *, create: bool = False) -> Iterator[Workplace]:
    """Open a workspace's rooms and close them afterwards.

    Raises SettingsError when there is none and `create` is not set.
    """
    settings = load_settings(Path(workspace))
    if create:
        create_workspace(settings)
    else:
        require_workspace(settings)
    key = pseudonym_key(settings)
    with open_registry(settings.resolved_database_url(), settings.resolved_artifacts_url()) as registry:
        yield Workplace(settings, registry, key)


def check_site(workplace: Workplace, site: str | None) -> None:
    """Raise NotFoundError for a site that never sent an image; None stands for all."""
    known = workplace.registry.samples.sites()
    if site is not None and site not in known:
        raise NotFoundError(f"no site {site!r}; known sites: {', '.join(known) or 'none yet'}; correct its name")


def check_adapter(workplace: Workplace, adapter: str | None) -> None:
    """Raise NotFoundError for an adapter that is not there; None stands for all."""
    known = workplace.registry.adapters.names()
    if adapter is not None and adapter not in known:
        raise NotFoundError(f"no adapter {adapter!r}; known: {', '.join(known) or 'none yet'}; correct --adapter")
