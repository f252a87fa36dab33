"""Re-extraction: what is on record is read from the source again, and stored if it is the same."""

from __future__ import annotations

from dataclasses import replace

from pipelines.extract.partition import StepPartition
from pipelines.extract.source import change_schema
from pipelines.extract.stage import Extracted, every_step, on_record, open_source
from pipelines.shared.columns import AUTO_ADDED, EXPIRED
from pipelines.shared.errors import CaptureMissing, CorruptPartition, NotExtracted, SourceMovedOn
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run


def reextract(run: Run, table: str) -> Extracted:
    """Read the changes of every step, which are on record, from the source again.

    What is stored stays until the source has given all of it again: the same changes, which may
    have columns that are declared since. Then the partition is replaced.

    Raises:
        NotExtracted: a step is not on record.
        SourceMovedOn: the source can no longer give the same changes; nothing was touched.
        DeclarationError, SchemaDrift, SettingsError, SourceUnavailable, LedgerUnavailable: see
            `run`.
    """
    run.shop.require_table(table)
    run, source = open_source(run, table, look=True)
    return every_step(run, table, source, _manifest)


def _manifest(partition: StepPartition) -> Manifest:
    """The step's manifest, once its partition was read again."""
    ledger, interval, declared = partition.run.ledger, partition.interval, partition.declared
    with on_record(partition) as (lock, known, done):
        if done is None:
            raise NotExtracted(
                f"{partition.name} of {interval} is not on record, so it cannot be extracted "
                "again; extract it without --reextract"
            )
        if not done.position:
            return done  # A later interval has its changes.
        partition.require_types()
        try:
            partition.source.check(partition.table)
            written = partition.reread(done, known, change_schema(declared).names)
        except (CaptureMissing, CorruptPartition) as error:
            raise SourceMovedOn(
                f"{partition.name} of {interval} cannot be extracted again: {error}. What is "
                "stored was not touched"
            ) from error
        details = {name: each for name, each in done.details.items() if name != EXPIRED}
        details |= {"bytes": written.bytes, "columns": written.columns}
        if declared.auto_added:
            details[AUTO_ADDED] = declared.auto_added
        manifest = replace(done, content_hash=written.hash.hexdigest(), details=details)
        ledger.record(manifest, lock)
        return manifest
