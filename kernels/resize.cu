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

// Five blocks on a multiprocessor, at most 48 registers: for sm_80 the compiler would take 64, and save two instructions in 58.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK, 5) resample_pass(
    const long long *__restrict__ passes,    // (N, NUM_PASS_COLUMNS)
    int num_samples)
{
    for (int sample = blockIdx.y; sample < num_samples; sample += gridDim.y) {
        const long long *pass = passes + (long long)sample * NUM_PASS_COLUMNS;
        const int kind = (int)pass[KIND], rows = (int)pass[ROWS], cols = (int)pass[COLS];
        if (kind == NOTHING) continue;
        const unsigned char *source = reinterpret_cast<const unsigned char *>(pass[SOURCE]);
        unsigned char *target = reinterpret_cast<unsigned char *>(pass[TARGET]);
        const int *table = reinterpret_cast<const int *>(pass[TABLE]);
        const int *col_indices = reinterpret_cast<const int *>(kind == NEAREST ? pass[TAPS] : 0);
        const long long pitch = pass[SOURCE_PITCH];
        const int taps = (int)pass[TAPS], origin = (int)pass[ORIGIN];
        const bool premultiply = pass[ALPHA] & 1, unpremultiply = pass[ALPHA] & 2;
        const int length = kind == HORIZONTAL ? cols : rows;
        const long long step = (kind == HORIZONTAL ? 1 : pitch) * CHANNELS;
        const unsigned num_pixels = (unsigned)rows * cols, stride = gridDim.x * blockDim.x;
        unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
        // Divided once; from there a thread goes on by as many rows and columns as its next pixel lies further.
        const int rows_on = (int)(stride / cols), cols_on = (int)(stride % cols);
        int row = (int)(at / cols), col = (int)(at % cols);
        for (; at < num_pixels; at += stride) {
            int result[CHANNELS];
            if (kind == COPY) {
                read_pixel(source + (row * pitch + col) * CHANNELS, false, result);
            } else if (kind == NEAREST) {
                read_pixel(source + (table[row] * pitch + col_indices[col]) * CHANNELS, false, result);
            } else {
                const int line = kind == HORIZONTAL ? col : row;
                const int first = table[line] - origin;
                const unsigned char *tap_source =
                    source + (kind == HORIZONTAL ? row * pitch + first : first * pitch + col) * CHANNELS;
#pragma unroll
                for (int channel = 0; channel < CHANNELS; ++channel) result[channel] = 1 << (PRECISION_BITS - 1);
                for (int tap = 0; tap < taps; ++tap, tap_source += step) {
                    const int weight = table[(tap + 1) * length + line];
                    if (weight == 0) continue;       // past the support, where the line may have ended
                    int pixel[CHANNELS];
                    read_pixel(tap_source, premultiply, pixel);
#pragma unroll
                    for (int channel = 0; channel < CHANNELS; ++channel) result[channel] += weight * pixel[channel];
                }
#pragma unroll
                for (int channel = 0; channel < CHANNELS; ++channel) {
                    result[channel] >>= PRECISION_BITS;
                    result[channel] = result[channel] < 0 ? 0 : result[channel] > 255 ? 255 : result[channel];
                }
                const int alpha = result[CHANNELS - 1];
                if (HAS_ALPHA && unpremultiply && alpha != 0 && alpha != 255) {    // 255 would divide to no effect
#pragma unroll
                    for (int channel = 0; channel < CHANNELS - 1; ++channel) {
                        const int straight = 255 * result[channel] / alpha;
                        result[channel] = straight > 255 ? 255 : straight;
                    }
                }
            }
#pragma unroll
            for (int channel = 0; channel < CHANNELS; ++channel) {
                target[(long long)at * CHANNELS + channel] = (unsigned char)result[channel];
            }
            row += rows_on;
            col += cols_on;
            if (col >= cols) {
                col -= cols;
                ++row;
            }
        }
    }
}
