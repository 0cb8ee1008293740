// What every kernel file shares: the macros that make a variant, and the shape of an image.
//
// The .cuh texts are pasted before a kernel file (see README.md), so that it is one translation unit without an include
// path. Axis letters: N samples, H rows, W columns, C channels. Every array is C-contiguous and every argument has been
// checked by the launcher: nothing here checks again.

#ifndef SOURCE_T                 // element type of the source images: unsigned char, unsigned short, float, double
#define SOURCE_T unsigned char
#endif
#ifndef COMPUTE_T                // float, or double for a float64 batch
#define COMPUTE_T float
#endif
#ifndef OUT_KIND                 // dtype of the batch, one of the OUT_* below
#define OUT_KIND 0
#endif
#ifndef CHANNELS                 // number of channels, or 0: take the argument
#define CHANNELS 0
#endif
#ifndef SOURCE_CHANNELS_LAST     // 1: source (M, H, W, C), 0: (M, C, H, W)
#define SOURCE_CHANNELS_LAST 1
#endif
#ifndef OUT_CHANNELS_LAST        // 1: batch (N, H, W, C), 0: (N, C, H, W)
#define OUT_CHANNELS_LAST 1
#endif
#ifndef TILE_COLS                // threads that lie side by side in a row, a power of two and 32 at most
#define TILE_COLS 8
#endif
#ifndef ORDER                    // spline order of the affine map: 0 or 1
#define ORDER 1
#endif
#ifndef FILL_MODE                // one of the FILL_* below
#define FILL_MODE 0
#endif
#ifndef CORRECTED                // 0: Keras' axes and centre, 1: what the argument names say
#define CORRECTED 0
#endif
#ifndef HAS_TABLE                // 0: there is no table, and sample n is source row n, untouched by affine and colour
#define HAS_TABLE 1
#endif
#ifndef HAS_AFFINE               // 0 promises that no sample asks for it; so do the three below
#define HAS_AFFINE 1
#endif
#ifndef HAS_FLIP
#define HAS_FLIP 1
#endif
#ifndef HAS_CHANNEL_SHIFT
#define HAS_CHANNEL_SHIFT 0
#endif
#ifndef HAS_BRIGHTNESS
#define HAS_BRIGHTNESS 0
#endif
#ifndef HAS_RANGE                // 1: `ranges` holds each sample's minimum and maximum after the affine map
#define HAS_RANGE 0
#endif
#ifndef ROUND_AFFINE             // 1: the affine map rounds half up and saturates to 0..255
#define ROUND_AFFINE 0
#endif
#ifndef IN_WORDS                 // 1: the affine map reads bytes of 3 or 4 channels, which lie in the last axis, in words (see `Start`)
#define IN_WORDS 0
#endif
#ifndef PREPROCESS               // 0: none, 1: tf, 2: caffe, 3: torch
#define PREPROCESS 0
#endif
#ifndef HAS_RESCALE
#define HAS_RESCALE 0
#endif

static_assert(HAS_RANGE || !HAS_CHANNEL_SHIFT, "a channel shift clips to the sample's range");

#define OUT_FLOAT32 0
#define OUT_FLOAT64 1
#define OUT_FLOAT16 2
#define OUT_BFLOAT16 3
#define OUT_UINT8 4

#define FILL_NEAREST 0
#define FILL_CONSTANT 1
#define FILL_REFLECT 2
#define FILL_WRAP 3

#if OUT_KIND == OUT_FLOAT32
#define OUT_T float
#elif OUT_KIND == OUT_FLOAT64
#define OUT_T double
#elif OUT_KIND == OUT_UINT8
#define OUT_T unsigned char
#else
#define OUT_T unsigned short
#endif

#define DEVICE static __device__ __forceinline__
#define MAX_BLOCK 256            // threads; the launcher never asks for more
#define IS_FLOAT_SOURCE ((SOURCE_T)0.5 != (SOURCE_T)0)
// Blocks on a multiprocessor that the registers of a kernel leave room for. Four: at most 64 registers, or the compiler takes 90
// for paths of rare use. Five, at most 48, where next to nothing is spilled for it.
#define IS_LIGHT ((CHANNELS == 1 || ((IS_FLOAT_SOURCE || ORDER == 0) && CHANNELS >= 1 && CHANNELS <= 4)) && !HAS_CHANNEL_SHIFT && !HAS_BRIGHTNESS)
#ifndef MIN_BLOCKS
#define MIN_BLOCKS (IS_LIGHT || IN_WORDS ? 5 : 4)
#endif
#define MAX_BAND_ROWS 64         // rows of one unit of work

#ifndef DYNAMIC_SHARED           // the host shim brings its own
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

// What the threads of a block read and write lies in global memory, at a sum of 64 bits that changes once in a band. This is
// the same pointer, of which the compiler no longer sees that it is a sum: it would add the parts anew for every pixel.
template <class T> DEVICE T *kept(T *pointer)
{
#ifndef HOST_RUN
    asm("" : "+l"(pointer));
    __builtin_assume(__isGlobal(pointer));
#endif
    return pointer;
}

// An image of the source and of the batch: they have the same sides.
struct Shape {
    int height, width, channels;
};

DEVICE int source_row_stride(Shape shape) { return SOURCE_CHANNELS_LAST ? shape.width * shape.channels : shape.width; }
DEVICE int source_col_stride(Shape shape) { return SOURCE_CHANNELS_LAST ? shape.channels : 1; }
DEVICE int source_channel_stride(Shape shape) { return SOURCE_CHANNELS_LAST ? 1 : shape.height * shape.width; }
