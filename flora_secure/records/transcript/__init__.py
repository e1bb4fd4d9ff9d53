"""The messages of a run's masking protocol as its server saw them: one file a round, `transcript/round-00001.bin`.

    "flora-secure transcript 1\\n" · around u8 · clients u32 · identity keys (count u32, 32 bytes each)
    · invitation (length u32, its long form)
    · records: trip u8 · direction u8 (0 to clients, 1 to the server) · positions (count u32, u32 each)
               · message (length u32, its bytes)
    · end u8 (255)

All numbers are little-endian. A message that goes to several clients stands there once, with the positions of all; one
of no bytes says who was asked to begin. `around`: bytes that frame each reply on its way, which the log counts. The
line of the round in the log has the file's SHA-256, so that a file without its end is of a round that was in flight
when the run was killed, or was cut afterwards.
"""
