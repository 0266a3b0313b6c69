"""How it is made: snapshot, parse, chunk, embed, index, quarantine. No Dagster in here."""
