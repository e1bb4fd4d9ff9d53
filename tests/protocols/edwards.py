"""The curve of Ed25519 (RFC 8032, section 5.1) in plain integers, slow and by the definition: for known answers."""

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)  # of -1
NEUTRAL = (0, 1)


def add(a, b):
    """The sum of two points: -x² + y² = 1 + d x² y², whose addition law has no exceptions."""
    (x1, y1), (x2, y2) = a, b
    both = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + y1 * x2) * pow(1 + both, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - both, -1, P) % P


def order_at_most_8(point):
    for _ in range(3):
        point = add(point, point)
    return point == NEUTRAL


def decoded(raw):
    """The point that 32 bytes stand for, y reduced if need be, as lenient decoders have it; None if there is none."""
    number = int.from_bytes(raw, "little")
    y, sign = number % (1 << 255) % P, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P:
        return None
    return (-x % P if x % 2 != sign else x), y  # of x = 0 there is one only, whatever the sign says


def torsion():
    """The eight points of order 1, 2, 4 and 8: the multiples of one of order 8, in which a random point ends."""
    y, prime = 2, 2**252 + 27742317777372353535851937790883648493
    while True:
        point, sum_ = decoded(y.to_bytes(32, "little")), NEUTRAL
        if point is not None:
            for bit in bin(prime)[2:]:
                sum_ = add(sum_, sum_)
                sum_ = add(sum_, point) if bit == "1" else sum_
            multiples = [NEUTRAL]
            while (after := add(multiples[-1], sum_)) != NEUTRAL:
                multiples.append(after)
            if len(multiples) == 8:
                return multiples
        y += 1
