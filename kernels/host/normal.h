// Quantiles of normal distributions, as Python's statistics.NormalDist.inv_cdf has them to the bit.
// Wichura, "Algorithm AS 241: the percentage points of the normal distribution", 1988: a rational function for each of three ranges.
#pragma once
#include <cmath>
#include <cstdint>

namespace {

struct Rational {
    double above[8], below[8];           // coefficients, the highest power first
};
constexpr Rational MIDDLE = {
    {2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125,
     1971.5909503065514427, 133.14166789178437745, 3.387132872796366608},
    {5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077,
     687.1870074920579083, 42.313330701600911252, 1.0}};
constexpr Rational OUTSIDE = {
    {7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258, 3.64784832476320460504,
     5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734},
    {1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459, 0.68976733498510000455,
     1.6763848301838038494, 2.05319162663775882187, 1.0}};
constexpr Rational FAR_OUTSIDE = {
    {2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093, 0.29656057182850489123,
     1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772},
    {2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4, 0.0148753612908506148525,
     0.13692988092273580531, 0.59983220655588793769, 1.0}};

double horner(const double *coefficients, double at)
{
    double sum = coefficients[0];
    for (int number = 1; number < 8; ++number) sum = sum * at + coefficients[number];
    return sum;
}

// Of a number in (0, 1).
double normal_quantile(double number, double middle, double deviation)
{
    const double beside = number - 0.5;
    if (std::fabs(beside) <= 0.425) {
        const double at = 0.180625 - beside * beside;
        return middle + horner(MIDDLE.above, at) * beside / horner(MIDDLE.below, at) * deviation;
    }
    const double far = std::sqrt(-std::log(beside <= 0 ? number : 1.0 - number));
    const Rational &rational = far <= 5.0 ? OUTSIDE : FAR_OUTSIDE;
    const double at = far - (far <= 5.0 ? 1.6 : 5.0), found = horner(rational.above, at) / horner(rational.below, at);
    return middle + (beside < 0 ? -found : found) * deviation;
}

void normal_quantiles(const double *numbers, int64_t count, double middle, double deviation, double *to)
{
    for (int64_t at = 0; at < count; ++at) to[at] = normal_quantile(numbers[at], middle, deviation);
}

} // namespace
