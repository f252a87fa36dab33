"""What belongs to a database rather than to a capture: connections, types, values, catalogues."""
