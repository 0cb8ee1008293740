// Pillow's resize of a ragged batch of 8-bit images, one pass of it: the passes of all samples run in one launch, each by
// its own descriptor. Integers throughout, so the result is Pillow's to the bit (ImagingResample in Pillow's Resample.c).
//
// Macros: CHANNELS, 1 to 4 (3 by default); 2 and 4 end in alpha. Pixels are (rows, cols, C), C-contiguous within a row.
// Checked by the launcher (gpuseq/ops/cuda/resize.py): pointers, tables,
// rows * cols < 2^31, gridDim.x * blockDim.x <= 2^31.

#define PRECISION_BITS 22
#if CHANNELS == 0                // no argument says how many there are
#undef CHANNELS
#define CHANNELS 3
#endif

enum PassColumn {                // a descriptor of int64s, by sample
    SOURCE,                      // address of the pass's first pixel
    SOURCE_PITCH,                // pixels from one source row to the next
    TARGET,                      // address of the result, (rows, cols, C)
    ROWS,
    COLS,
    KIND,                        // one of PassKind
    TABLE,                       // weighted: address of first[n], weights[taps][n], int32, n the pass's output length
    TAPS,                        //   NEAREST: address of the row indices; this one: of the column indices
    ORIGIN,                      // weighted: the line's pixel that SOURCE points at
    ALPHA,                       // bit 0: premultiply what is read, bit 1: undo it in what is written
    NUM_PASS_COLUMNS
};

enum PassKind { NOTHING, COPY, NEAREST, HORIZONTAL, VERTICAL };

#define HAS_ALPHA (CHANNELS == 2 || CHANNELS == 4)

// On a multiprocessor: at most 32, 48 and 40 registers. What a pass of one channel reads, the compiler holds in twice as many.
#define RESIZE_BLOCKS (CHANNELS == 3 ? 8 : CHANNELS == 1 ? 5 : 6)
#define TAPS_AT_ONCE (CHANNELS == 1 ? 2 : 4)         // whose loads are in flight together

DEVICE void read_pixel(const unsigned char *__restrict__ source, bool premultiply, int *pixel)
{
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) pixel[channel] = source[channel];
    if (HAS_ALPHA && premultiply) {
#pragma unroll
        for (int channel = 0; channel < CHANNELS - 1; ++channel) {
            const int product = pixel[channel] * pixel[CHANNELS - 1] + 128;
            pixel[channel] = ((product >> 8) + product) >> 8;
        }
    }
}

// Calls make(row, col, pixel) for the pixels of a pass and writes them. Divided once; from there a thread goes on by as many
// rows and columns as its next pixel lies further.
template <class Make> DEVICE void write_pixels(unsigned char *target, unsigned rows, unsigned cols, Make make)
{
    const unsigned stride = gridDim.x * blockDim.x, at = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned rows_on = stride / cols, cols_on = stride % cols;
#pragma unroll 1
    for (unsigned row = at / cols, col = at % cols; row < rows;) {
        int pixel[CHANNELS];
        make(row, col, pixel);
        unsigned char *out = target + (long long)(row * cols + col) * CHANNELS;
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) out[channel] = (unsigned char)pixel[channel];
        row += rows_on;
        col += cols_on;
        if (col >= cols) {
            col -= cols;
            ++row;
        }
    }
}

// The sum over a line's taps: weights `length` apart, pixels `step` bytes apart.
DEVICE void sum_taps(const int *weights, int length, const unsigned char *source, long long step, int taps, int alpha, int *pixel)
{
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) pixel[channel] = 1 << (PRECISION_BITS - 1);
#pragma unroll TAPS_AT_ONCE
    for (int tap = 0; tap < taps; ++tap, source += step, weights += length) {
        const int weight = *weights;
        if (weight == 0) continue;       // past the support, where the line may have ended
        int read[CHANNELS];
        read_pixel(source, alpha & 1, read);
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) pixel[channel] += weight * read[channel];
    }
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) {
        pixel[channel] >>= PRECISION_BITS;
        pixel[channel] = pixel[channel] < 0 ? 0 : pixel[channel] > 255 ? 255 : pixel[channel];
    }
    const int opacity = pixel[CHANNELS - 1];
    if (HAS_ALPHA && (alpha & 2) && opacity != 0 && opacity != 255) {    // 255 would divide to no effect
#pragma unroll
        for (int channel = 0; channel < CHANNELS - 1; ++channel) {
            const int straight = 255 * pixel[channel] / opacity;
            pixel[channel] = straight > 255 ? 255 : straight;
        }
    }
}

// Each kind of pass has a loop of its own, which holds no more than it needs.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK, RESIZE_BLOCKS) resample_pass(
    const long long *__restrict__ passes,    // (N, NUM_PASS_COLUMNS)
    int num_samples)
{
    for (int sample = blockIdx.y; sample < num_samples; sample += gridDim.y) {
        const long long *pass = passes + (long long)sample * NUM_PASS_COLUMNS;
        const int kind = (int)pass[KIND], rows = (int)pass[ROWS], cols = (int)pass[COLS];
        const unsigned char *source = reinterpret_cast<const unsigned char *>(pass[SOURCE]);
        unsigned char *target = reinterpret_cast<unsigned char *>(pass[TARGET]);
        const int *table = reinterpret_cast<const int *>(pass[TABLE]);
        const long long pitch = pass[SOURCE_PITCH] * CHANNELS;
        if (kind == HORIZONTAL || kind == VERTICAL) {
            const int taps = (int)pass[TAPS], alpha = (int)pass[ALPHA];
            source -= pass[ORIGIN] * (kind == HORIZONTAL ? CHANNELS : pitch);
            if (kind == HORIZONTAL) {
                write_pixels(target, rows, cols, [&](int row, int col, int *pixel) {
                    const unsigned char *first = source + (row * pitch + table[col] * CHANNELS);
                    sum_taps(table + cols + col, cols, first, CHANNELS, taps, alpha, pixel);
                });
            } else {
                write_pixels(target, rows, cols, [&](int row, int col, int *pixel) {
                    const unsigned char *first = source + (table[row] * pitch + col * CHANNELS);
                    sum_taps(table + rows + row, rows, first, pitch, taps, alpha, pixel);
                });
            }
        } else if (kind == NEAREST) {
            const int *col_indices = reinterpret_cast<const int *>(pass[TAPS]);
            write_pixels(target, rows, cols, [&](int row, int col, int *pixel) {
                read_pixel(source + (table[row] * pitch + col_indices[col] * CHANNELS), false, pixel);
            });
        } else if (kind == COPY) {
            write_pixels(target, rows, cols, [&](int row, int col, int *pixel) {
                read_pixel(source + (row * pitch + col * CHANNELS), false, pixel);
            });
        }
    }
}
