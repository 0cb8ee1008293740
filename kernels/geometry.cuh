// Where a pixel of the batch comes from: a sample's row of the table, its map, and what lies beyond the border.
//
// No word here is CUDA's own, so the CPU engine (kernels/host) is compiled of the same text.

// ---------------------------------------------------------------------------------------------------- the table
// One row of doubles per sample, 128 bytes: the drawn columns (COLUMNS in gpuseq/plan/columns.py), then what the host adds
// (gpuseq/ops/table.py, which pastes a check of every place behind this text). Sines and cosines come from the host, so
// that the maps are the NumPy engine's to the last bit.
enum TableColumn {
    THETA, TX, TY, SHEAR, ZX, ZY, FLIP_HORIZONTAL, FLIP_VERTICAL, CHANNEL_SHIFT, BRIGHTNESS,
    COS_THETA, SIN_THETA, COS_SHEAR, SIN_SHEAR,
    SOURCE_INDEX,                // row of the source array, an int64 in the bits of a double
    NUM_COLUMNS = 16             // the last one is padding
};

DEVICE bool is_nan(double value) { return value != value; }

// Keras' matrix, R(theta) Shift Shear Zoom about the centre with its axes swapped: ops/numpy/affine.py, product by product.
// fma where BLAS has it (a sum over k accumulates from k = 0), because the last bit decides what lies on the border.
DEVICE void build_inverse(const double *row, int height, int width, double inverse_23[2][3])
{
    const double c = row[COS_THETA], s = row[SIN_THETA];
    const double tx = CORRECTED ? row[TY] : row[TX], ty = CORRECTED ? row[TX] : row[TY];
    const double shift_0 = fma(-s, ty, c * tx);
    const double shift_1 = fma(c, ty, s * tx);
    const double m00 = c * row[ZX];
    const double m10 = s * row[ZX];
    const double m01 = fma(-s, row[COS_SHEAR], c * (-row[SIN_SHEAR])) * row[ZY];
    const double m11 = fma(c, row[COS_SHEAR], s * (-row[SIN_SHEAR])) * row[ZY];
    const double centre_0 = (CORRECTED ? width : height) / 2.0 - 0.5;
    const double centre_1 = (CORRECTED ? height : width) / 2.0 - 0.5;
    inverse_23[0][0] = m11;
    inverse_23[0][1] = m10;
    inverse_23[0][2] = fma(m11, -centre_1, m10 * (-centre_0)) + (shift_1 + centre_1);
    inverse_23[1][0] = m01;
    inverse_23[1][1] = m00;
    inverse_23[1][2] = fma(m01, -centre_1, m00 * (-centre_0)) + (shift_0 + centre_0);
}

// ---------------------------------------------------------------------------------------------------- borders
// SciPy's map_coordinate (ndimage/src/ni_support): brings a coordinate outside [0, size - 1] back by the fill mode.
//   nearest   aaaa|abcd|dddd      reflect  dcba|abcd|dcba
//   constant  kkkk|abcd|kkkk      wrap     period size - 1
// The quotients are taken only where they are not the constant that they are next to the image.
DEVICE double map_coordinate(double value, int size)
{
#if FILL_MODE == FILL_CONSTANT
    if (!(value >= 0.0 && value <= size - 1)) return -1.0;
#elif FILL_MODE == FILL_REFLECT
    const double period = 2.0 * size;
    if (value < 0.0) {
        if (size <= 1) return 0.0;
        if (value < -period) value += period * trunc(-value / period);
        value = value < -size ? value + period : (value > -1e-15 ? 1e-15 : -value) - 1.0;
    } else if (value > size - 1) {
        if (size <= 1) return 0.0;
        if (value >= period) value -= period * trunc(value / period);
        if (value >= size) value = period - value - 1.0;
    }
#elif FILL_MODE == FILL_WRAP
    const double period = size - 1;
    if (value < 0.0) {
        if (size <= 1) return 0.0;
        value += period * ((-value < period ? 0.0 : trunc(-value / period)) + 1.0);
    } else if (value > size - 1) {
        if (size <= 1) return 0.0;
        value -= period * (value < 2.0 * period ? 1.0 : trunc(value / period));
    }
#endif
    return value;
}

// A tap next to the image. After map_coordinate it is at most one step outside: for reflect the pixel at the border again,
// for nearest the same, and for constant and wrap of no weight.
DEVICE int fold_tap(int tap, int size) { return tap < 0 ? 0 : tap >= size ? size - 1 : tap; }
