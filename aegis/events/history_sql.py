# SPDX-License-Identifier: Apache-2.0
"""The tables of history, and what is said to them."""

VERSION = 1
TABLES = """
CREATE TABLE boot (
    id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL UNIQUE, offset_ns INTEGER NOT NULL
);
CREATE TABLE program (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL, identity INTEGER NOT NULL, UNIQUE (path, identity)
);
CREATE TABLE number (
    origin TEXT NOT NULL, number INTEGER NOT NULL, program INTEGER NOT NULL,
    PRIMARY KEY (origin, number)
) WITHOUT ROWID;
CREATE TABLE origin (
    origin TEXT PRIMARY KEY, untaken INTEGER NOT NULL, taken INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE flow (
    program INTEGER NOT NULL, direction TEXT NOT NULL, protocol INTEGER NOT NULL,
    address BLOB NOT NULL, port INTEGER NOT NULL, verdict TEXT NOT NULL,
    first_boot INTEGER NOT NULL, first_ns INTEGER NOT NULL,
    last_boot INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    count INTEGER NOT NULL, reports INTEGER NOT NULL,
    PRIMARY KEY (program, direction, protocol, address, port, verdict)
) WITHOUT ROWID;
CREATE TABLE past (
    taken INTEGER NOT NULL, forgotten_rows INTEGER NOT NULL, forgotten INTEGER NOT NULL
);
INSERT INTO past VALUES (0, 0, 0);
"""
# The same epochs of one boot come in order; what is older than the row's is of a lost file.
_ADD = """
INSERT INTO flow VALUES {}
ON CONFLICT DO UPDATE SET
    last_ns = iif(last_boot = excluded.last_boot, max(last_ns, excluded.last_ns), excluded.last_ns),
    last_boot = excluded.last_boot,
    count = count + excluded.count,
    reports = reports + excluded.reports
"""


def add(count: int) -> str:
    """Add *count* rows."""
    return _ADD.format(", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count))


FACTS = """
SELECT path, identity, direction, protocol, address, port, verdict,
       a.offset_ns + first_ns, b.offset_ns + last_ns AS last, count, reports
FROM flow JOIN program ON program.id = flow.program
JOIN boot a ON a.id = first_boot JOIN boot b ON b.id = last_boot
WHERE last >= ? ORDER BY last
"""
FORGET_OLD = """
DELETE FROM flow WHERE last_ns + (SELECT offset_ns FROM boot WHERE id = last_boot) < ?
"""
# Of the program with the most rows: a flood by one costs no other program's.
BIGGEST = "SELECT program, count(*) FROM flow GROUP BY program ORDER BY 2 DESC, 1 LIMIT 1"
FORGET_SOME = """
DELETE FROM flow WHERE (program, direction, protocol, address, port, verdict) IN (
    SELECT program, direction, protocol, address, port, verdict FROM flow
    WHERE program = ? ORDER BY last_boot, last_ns LIMIT ?
)
"""
# What no row needs and no sum to come can mean: of another boot, or over the bound on rows.
FORGET_NAMES = """
UPDATE past SET taken = taken
    + (SELECT ifnull(sum(taken), 0) FROM origin WHERE origin NOT LIKE :here);
DELETE FROM origin WHERE origin NOT LIKE :here;
DELETE FROM number WHERE origin NOT LIKE :here OR (
    (SELECT count(*) FROM number) > :rows AND program NOT IN (SELECT program FROM flow));
DELETE FROM program
    WHERE id NOT IN (SELECT program FROM flow) AND id NOT IN (SELECT program FROM number);
DELETE FROM boot WHERE boot_id || ':%' != :here
    AND id NOT IN (SELECT first_boot FROM flow) AND id NOT IN (SELECT last_boot FROM flow)
"""
