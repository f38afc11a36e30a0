"""What is wrong with the histories of records, whatever happened: queries for it, seen from outside of the engine."""

WRONG_HISTORIES = {
    "versions have gaps": """
        select id, count(*) from eventic.records
        group by id having min(version) <> 0 or max(version) + 1 <> count(*)""",
    "versions do not chain": """
        select id, version from (
            select id, version, superseded_at,
                   lead(recorded_at) over (partition by id order by version) as following from eventic.records) r
        where superseded_at is distinct from following""",
}
