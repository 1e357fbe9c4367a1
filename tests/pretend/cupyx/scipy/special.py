"""What stands in for `cupyx.scipy.special`: error functions."""

from standin import special

erf, erfc = special.erf, special.erfc
