// From a colour to a value of the batch: Keras' preprocessing modes, the rescale, and the cast.

// Keras' imagenet_utils modes for channel `channel` of the batch, then the rescale.
DEVICE COMPUTE_T preprocess(COMPUTE_T value, int channel, double rescale)
{
#if PREPROCESS == 1
    value /= (COMPUTE_T)127.5;
    value -= (COMPUTE_T)1.0;
#elif PREPROCESS == 2
    value -= (COMPUTE_T)(channel == 0 ? 103.939 : channel == 1 ? 116.779 : channel == 2 ? 123.68 : 0.0);
#elif PREPROCESS == 3
    value /= (COMPUTE_T)255.0;
    value -= (COMPUTE_T)(channel == 0 ? 0.485 : channel == 1 ? 0.456 : channel == 2 ? 0.406 : 0.0);
    value /= (COMPUTE_T)(channel == 0 ? 0.229 : channel == 1 ? 0.224 : channel == 2 ? 0.225 : 1.0);
#endif
#if HAS_RESCALE
    value *= (COMPUTE_T)rescale;
#endif
    return value;
}

// The source channel that channel `channel` of the batch shows: caffe's are in reverse.
DEVICE int source_channel(int channel, int channels) { return PREPROCESS == 2 ? channels - 1 - channel : channel; }

#if OUT_KIND == OUT_FLOAT16 && !defined(HOST_RUN)    // the host shim brings its own
DEVICE unsigned short half_bits(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

DEVICE OUT_T cast_out(COMPUTE_T value)
{
#if OUT_KIND == OUT_UINT8
    return value >= (COMPUTE_T)255.0 ? 255 : value > (COMPUTE_T)0.0 ? (unsigned char)(int)value : 0;
#elif OUT_KIND == OUT_FLOAT16
    return half_bits(value);
#elif OUT_KIND == OUT_BFLOAT16
    const unsigned bits = __float_as_uint(value);    // round to nearest even by hand: no instruction before sm_80
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)(bits >> 16 | 0x40u);
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#else
    return value;
#endif
}
