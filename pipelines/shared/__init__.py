"""What every stage speaks: columns, intervals, settings, errors, the lake and the ledger."""
