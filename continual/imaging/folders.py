"""A folder of DICOM files and a table of labels to a list of sources; knows nothing of pixels.

The folder holds one folder per site unless the table names sites. Files that are no images (the table itself, DICOMDIR,
reports, text) are passed over.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from continual.domain.errors import IntakeError, ManifestError, UnreadableImageError
from continual.domain.samples import QuarantineEntry
from continual.imaging.decoding import ImageFormat, sniff_format
from continual.imaging.sources import (
    ImageSource,
    IntakeList,
    check_site_name,
    choose_sites,
    file_digest,
    read_table,
    require_columns,
)

IMAGE_SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".nii"})
"""A file that ends so and is none of our formats inside is a problem, not a bystander."""

_HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Found:
    """An image file under the folder; `reason` says why it cannot be read, None when its header could."""

    position: int
    path: Path
    relative: str
    keys: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _LabelTable:
    """Label rows by the file's key, its UID or its path under the folder; a key may have contradicting rows."""

    column: str = "path"
    rows: Mapping[str, list[Mapping[str, str]]] = field(default_factory=dict)

    def of(self, found: _Found) -> Mapping[str, str]:
        """The row of a file, empty when there is none; IntakeError when two rows differ."""
        matching = [row for key in found.keys for row in self.rows.get(key, ())]
        if any(row != matching[0] for row in matching):
            raise IntakeError("the table of labels has two different rows for the image; keep one of them")
        return matching[0] if matching else {}


def list_dicom_folder(folder: Path, labels: Path | None, sites: Sequence[str] = ()) -> IntakeList:
    """Every image file under `folder` in name order, with label, site and subject from the table where it has them.

    The table's columns are `sop_instance_uid` or `path` (under `folder`), `label`, and optionally `site` and `subject`.
    The site falls back on the first-level folder's name, the subject on the DICOM PatientID (None here). `sites` keeps
    those only, in that order. A position counts all files under the folder in name order, from 1.
    Raises ManifestError when the folder is absent or holds no image, the table cannot be used or matches no image, or a
    site is not there. Broken DICOM files become problems.
    """
    where = f"folder {folder.name!r}"
    if not folder.is_dir():
        raise ManifestError(f"{where} does not exist or is no folder; give the folder that holds one folder per site")
    found = [one for position, path in enumerate(_files(folder), start=1) if (one := _inspect(folder, path, position))]
    if not found:
        raise ManifestError(f"{where} holds no image; give the folder that holds one folder per site")
    table = _read_labels(labels) if labels is not None else _LabelTable()
    if labels is not None and not any(key in table.rows for one in found for key in one.keys):
        raise ManifestError(
            f"labels {labels.name!r}: none of its {len(table.rows)} values of {table.column!r} names any of the "
            f"{len(found)} images; check that both come from the same export"
        )
    return _with_sites(found, table, sites, where)


def _files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.parts)


def _inspect(folder: Path, path: Path, position: int) -> _Found | None:
    """What a file is, judged by its first bytes; None when it is no image."""
    relative = path.relative_to(folder).as_posix()
    looks_like_image = path.suffix.lower() in IMAGE_SUFFIXES or path.name.lower().endswith(".nii.gz")
    try:
        with path.open("rb") as file:
            kind = sniff_format(file.read(_HEAD_BYTES))
            if kind is not ImageFormat.DICOM:
                if kind is not None:
                    return _Found(position, path, relative, (relative,))
                reason = "the file's name is an image's and its bytes are not; export it again"
                return _Found(position, path, relative, (relative,), reason) if looks_like_image else None
            from continual.imaging.dicom import read_header

            header = read_header(file)
    except UnreadableImageError as error:
        return _Found(position, path, relative, (relative,), str(error))
    except OSError as error:
        reason = f"the file cannot be read ({error.strerror or type(error).__name__}); check that it may be read"
        return _Found(position, path, relative, (relative,), reason) if looks_like_image else None
    if not header.is_image:
        return None
    return _Found(position, path, relative, (header.sop_instance_uid or "", relative))


def _read_labels(path: Path) -> _LabelTable:
    where = f"labels {path.name!r}"
    header, rows = read_table(path, "labels")
    require_columns(header, ("label",), where)
    column = "sop_instance_uid" if "sop_instance_uid" in header else "path"
    if column not in header:
        raise ManifestError(
            f"{where}: neither 'sop_instance_uid' nor 'path' is a column; the header has: {', '.join(header)}; "
            "name the image of each label by one of them"
        )
    by_key: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if row[column]:
            by_key[row[column]].append({name: row.get(name, "") for name in ("label", "site", "subject")})
    return _LabelTable(column, dict(by_key))


def _with_sites(found: Sequence[_Found], table: _LabelTable, sites: Sequence[str], where: str) -> IntakeList:
    sources: list[ImageSource] = []
    problems: list[QuarantineEntry] = []
    for one in found:
        site = _site(one, table, sites, where)
        try:
            row = table.of(one)
        except IntakeError as error:
            problems.append(_held_back(one, site, str(error)))
            continue
        if one.reason is not None:
            problems.append(_held_back(one, site, one.reason))
            continue
        subject, label = row.get("subject") or None, row.get("label") or None
        sources.append(ImageSource(one.position, one.path, site, subject, label))
    present = sorted([(s.position, s.site) for s in sources] + [(p.position, p.site) for p in problems])
    chosen = choose_sites([site for _, site in present], sites, where)
    order = {site: at for at, site in enumerate(chosen)}
    kept = (source for source in sources if source.site in order)
    held = (entry for entry in problems if entry.site in order)
    return IntakeList(
        sources=tuple(sorted(kept, key=lambda source: (order[source.site], source.position))),
        problems=tuple(sorted(held, key=lambda entry: (order[entry.site], entry.position))),
        sites=chosen,
    )


def _site(found: _Found, table: _LabelTable, asked: Sequence[str], where: str) -> str:
    """The table's site, else the first-level folder's name, else the one site asked for."""
    stated = next((row["site"] for key in found.keys for row in table.rows.get(key, ()) if row["site"]), "")
    first, _, rest = found.relative.partition("/")
    site = stated or (first if rest else asked[0] if len(asked) == 1 else "")
    if not site:
        raise ManifestError(
            f"{where}: file {found.position} in name order lies in no site's folder; move it into a folder named after "
            "its site, add the column 'site' to the labels, or ask for exactly one site"
        )
    return check_site_name(site, f"{where}, file {found.position} in name order")


def _held_back(found: _Found, site: str, reason: str) -> QuarantineEntry:
    return QuarantineEntry(site, found.position, file_digest(found.path, found.position), reason)
