"""What the readers of a pack may do, by what is wrong with it."""

from alterations import FOUND, GOOD, REFUSED, expect

_FINDS = {"verify": (FOUND, REFUSED), "decode": (FOUND, REFUSED)}

# What every reader sees when it opens the pack.
INVALID = expect([REFUSED], **_FINDS, repair=(GOOD, FOUND, REFUSED))

# The bytes of images differ: evaluation and staging refuse, training may replace a sample.
DAMAGED = expect([GOOD, REFUSED], **_FINDS, stage=[REFUSED], evaluate=[REFUSED])

# A checksum that a forger wrote agrees with the bytes, which only a full decode or a look at the
# header tells from what was packed.
FORGED_IMAGE = expect([GOOD, REFUSED], **_FINDS, evaluate=[REFUSED])
FORGED_UNDECODABLE = expect(
    [GOOD, REFUSED], verify=(GOOD, FOUND, REFUSED), decode=(FOUND, REFUSED), evaluate=[REFUSED]
)

# Wrong, but nothing that training or evaluation takes from the pack.
UNREAD = expect([GOOD, REFUSED], **_FINDS)

# Nothing is wrong with what a reader gets.
HARMLESS = expect([GOOD, REFUSED], verify=(GOOD, FOUND, REFUSED), decode=(GOOD, FOUND, REFUSED))

# Other labels or places for intact images, in an index that a forger has sealed again: the tar
# disagrees, which verify sees.
RELABELED = expect([GOOD, REFUSED], **_FINDS, results=False)

# Names that only the index holds (domain, split), sealed again: a different, intact pack.
UNDETECTABLE = expect(
    [GOOD, REFUSED],
    verify=(GOOD, FOUND, REFUSED),
    decode=(GOOD, FOUND, REFUSED),
    results=False,
)
