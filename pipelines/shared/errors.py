"""Errors whose type says whether a retry helps and whose message says what to do."""


class FreshrankError(Exception):
    """Base of every error that Freshrank raises on purpose."""


class TransientError(FreshrankError):
    """The same call may succeed later: a server was away, a connection was cut."""


class PermanentError(FreshrankError):
    """The same call will fail again until a person changes something."""


class DeclarationError(PermanentError):
    """A shop's declaration is wrong; the message names the file, the path and what is accepted."""


class SettingsError(PermanentError):
    """A setting is missing or wrong."""


class IntervalError(PermanentError):
    """An interval is reversed, misaligned or in the future."""


class SchemaDrift(PermanentError):
    """A source table no longer looks as the shop declares it."""


class SourceUnavailable(TransientError):
    """A shop's database cannot be reached."""


class CaptureMissing(PermanentError):
    """Change capture is not installed on a declared table."""


class CorruptPartition(PermanentError):
    """A stored partition is damaged or does not match its manifest."""


class SourceMovedOn(PermanentError):
    """A source can no longer give the changes of an interval that it gave before."""


class Expired(PermanentError):
    """The rows of an interval were removed by the shop's declared retention."""


class LedgerUnavailable(TransientError):
    """The ledger's database cannot be reached."""


class LedgerBusy(TransientError):
    """A lock of the ledger stayed held by somebody else."""


class LedgerReadOnly(PermanentError):
    """The ledger's database takes no writes."""


class TurnTaken(TransientError):
    """Another run has the turn of the shop's surface, or is before this one in the queue for it."""


class TurnLost(TransientError):
    """The turn of this run is over: another took it while this one gave no sign of life."""


class IntervalOverlaps(PermanentError):
    """An interval overlaps one that is decided or running, and is not the same."""


class LakeUnavailable(TransientError):
    """The lake's storage does not answer now; what it holds is not in question."""


class LakeFull(TransientError):
    """The lake has no room for further rows."""


class TrackingUnavailable(TransientError):
    """The MLflow server cannot be reached."""


class AccountingError(PermanentError):
    """extracted = valid + quarantined + duplicates does not hold."""


class FeatureMismatch(PermanentError):
    """A model and the data it is to score or learn from have different features."""


class SuiteError(PermanentError):
    """A suite of expectations is missing or wrong; the message names the file and the path."""


class NotThere(PermanentError):
    """The shopper, item or time that was asked for is not known."""


class NamesTheShopper(PermanentError):
    """The reason for forgetting a shopper holds their id, which would stay on record."""


class ChangedMeanwhile(TransientError):
    """Another command rewrote what this one had read; nothing was written."""


class NotExtracted(PermanentError):
    """A stage was asked for an interval whose changes were never extracted."""


class BatchRejected(PermanentError):
    """So much of a partition is unsound that the source, not a row, is broken."""
