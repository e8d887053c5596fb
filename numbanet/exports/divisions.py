"""Divisions that round down as Python's do, and powers, from operations of every language."""

from numbanet.exports.constants import constant
from numbanet.exports.program import BOOL, F32, RANGES, Value


class Divisions:
    """Mix-in of Arithmetic."""

    def _float_division(self, op, a, b) -> Value:
        """a // b or a % b of float32, towards minus infinity as in Python."""
        whole = self.unary("floor", self.binary("div", F32, a, b))
        if op == "floordiv":
            return whole
        return self.binary("sub", F32, a, self.binary("mul", F32, b, whole))

    def _power(self, base, exponent: int) -> Value:
        """Power by squaring: pow of shaders has no negative base."""
        if exponent == 0:
            return constant(F32, 1)
        if exponent < 0:
            return self.binary("div", F32, constant(F32, 1), self._power(base, -exponent))
        half = self._power(base, exponent // 2)
        square = self.binary("mul", F32, half, half)
        return self.binary("mul", F32, square, base) if exponent % 2 else square

    def _floored(self, op, type, a, b) -> Value:
        """Value of a // b or a % b where one may be negative, from the quotient of magnitudes."""
        zero, one = constant(type, 0), constant(type, 1)
        up, down = self._magnitude(a), self._magnitude(b)
        quotient = self.binary("floordiv", type, up, down)
        product = self.binary("mul", type, quotient, down)
        more = self.select(self.binary("ne", type, product, up), one, zero)
        below = self.binary("sub", type, zero, self.binary("add", type, quotient, more))
        signs = [self.binary("lt", type, each, zero) for each in (a, b)]
        floored = self.select(self.binary("xor", BOOL, *signs), below, quotient)
        if op == "floordiv":
            return floored
        return self.binary("sub", type, a, self.binary("mul", type, floored, b))

    def _magnitude(self, value) -> Value:
        if value.low >= 0:
            return value
        type = value.type
        zero = constant(type, 0)
        opposite = self.binary("sub", type, zero, value)
        found = self.select(self.binary("lt", type, value, zero), opposite, value)
        if not found.is_constant:
            found.low, found.high = 0, min(max(-value.low, value.high), RANGES[type][1])
        return found
