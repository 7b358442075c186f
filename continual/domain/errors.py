"""The one error tree. Every message names the value, the limit and the remedy, and never a patient.

ContinualError
|-- SettingsError            a setting or a command-line value is out of range
|-- IntakeError
|   |-- ManifestError        the table of files as a whole cannot be used
|   |-- UnreadableImageError one file cannot be decoded
|   `-- QualityError         one image decodes but must not be learnt from
|-- LearningError
|   |-- BackboneError        weights missing, not matching, or not to be had offline
|   |-- StreamError          an experience cannot be learnt: no labels, no samples, one class
|   |   `-- ImageErasedError an image was erased after it was listed and before it was read
|   |-- PromptError          a box prompt is no box, lies outside its image, or names no class
|   |-- ImageLetGoError      what is asked needs images that the change plan let go
|   `-- AdapterMismatchError a loaded adapter does not reproduce its stored outputs
|-- MonitoringError
|   `-- WindowError          a window is empty or its columns do not match the reference
|-- RegistryError
|   |-- NotFoundError        no such adapter, version, alias, site, report
|   |-- ConflictError        the record contradicts what is already stored (split, parent, digest)
|   |-- NotAcceptedError     an alias was asked to move to a version the gate did not accept
|   |-- SchemaError          the database belongs to a newer release or is not ours
|   |-- ArtifactError        stored bytes do not match their digest
|   |-- StorageFullError     no room left to write; nothing partial was kept
|   `-- LedgerError          the hash chain is broken
|-- ServiceError             a server cannot start: port in use, adapter missing
`-- DeliveryError            a message could not be handed to an address outside
"""


class ContinualError(Exception):
    """Base of every error a user can meet; the message is complete and safe to show."""


class SettingsError(ContinualError):
    """A setting or command-line value lies outside its range."""


class IntakeError(ContinualError):
    """Something about incoming files."""


class ManifestError(IntakeError):
    """The manifest as a whole cannot be used; nothing was ingested."""


class UnreadableImageError(IntakeError):
    """One file cannot be decoded; it is quarantined and the rest goes on."""


class QualityError(IntakeError):
    """One image decodes but fails the quality gate; it is quarantined and the rest goes on."""


class LearningError(ContinualError):
    """Something about models and training."""


class BackboneError(LearningError):
    """The backbone's weights are missing, do not match the architecture, or cannot be fetched."""


class StreamError(LearningError):
    """An experience cannot be learnt as it is."""


class ImageErasedError(StreamError):
    """An image was erased after it was listed and before it was read; listed again, it is left out."""


class PromptError(LearningError):
    """A box prompt cannot be used: it is no box, lies outside its image, names no class, or nothing asks for boxes."""


class ImageLetGoError(LearningError):
    """What is asked needs images that were let go by the change plan, or activations that are not there."""


class AdapterMismatchError(LearningError):
    """A loaded adapter does not reproduce the outputs stored with it; it is refused, not served."""


class MonitoringError(ContinualError):
    """Something about drift statistics."""


class WindowError(MonitoringError):
    """A window is empty, or its columns differ from the reference."""


class RegistryError(ContinualError):
    """Something about stored records."""


class NotFoundError(RegistryError):
    """The named record does not exist."""


class ConflictError(RegistryError):
    """The record contradicts what is already stored."""


class NotAcceptedError(RegistryError):
    """An alias was asked to move to a version that the gate did not accept."""


class SchemaError(RegistryError):
    """The database belongs to a newer release, or is not a Continual database."""


class ArtifactError(RegistryError):
    """Stored bytes do not match the digest that names them."""


class StorageFullError(RegistryError):
    """No room left on the device; nothing partial was kept."""


class LedgerError(RegistryError):
    """The ledger's hash chain does not verify."""


class ServiceError(ContinualError):
    """A server cannot start."""


class DeliveryError(ContinualError):
    """A message could not be handed to an address outside; it is kept and tried again where it was a drift report."""
