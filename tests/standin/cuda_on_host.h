// Enough of CUDA C++ for g++ to compile a kernel file of this project and run it on the CPU, one block after another.
//
// The threads of a block are fibers: each runs until a barrier, then the next one does. They are made once by ucontext and
// switched by setjmp, which asks the system for nothing; under AddressSanitizer, which follows no longjmp to another stack,
// by ucontext too. `reverse` starts them from the last thread, so a missing barrier that one order would hide shows in the other. Dynamic shared memory is
// filled with 0xA5 before every block. Only <<<x, y>>> grids of one dimension are needed and offered.

#undef _FORTIFY_SOURCE      // its longjmp takes another stack for an error
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define HOST_RUN 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(cuda_on_host::dynamic_shared)

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0}, blockDim{1, 1, 1}, gridDim{1, 1, 1};

namespace cuda_on_host {

constexpr size_t STACK_BYTES = 256 * 1024;
constexpr size_t SHARED_BYTES = 48 * 1024;      // what a launch gets without asking for more
constexpr unsigned MAX_THREADS = 1024;

alignas(16) static unsigned char dynamic_shared[SHARED_BYTES];

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    char *stack;
    bool is_made, has_begun, done;
};
static Fiber fibers[MAX_THREADS];
static void (*body)(void *);
static void *body_argument;

#if defined(__SANITIZE_ADDRESS__)
static ucontext_t scheduler;
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#else
static jmp_buf scheduler_place;
#endif

// A barrier: back to the scheduler, which comes again when every thread of the block has arrived.
static inline void yield()
{
    Fiber &fiber = fibers[threadIdx.x];
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_stack_bytes);
    swapcontext(&fiber.context, &scheduler);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    if (!_setjmp(fiber.place)) _longjmp(scheduler_place, 1);
#endif
}

static void fiber_main()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    for (;;) {      // once a block
        body(body_argument);
        fibers[threadIdx.x].done = true;
        yield();
    }
}

static inline void resume(unsigned thread)
{
    Fiber &fiber = fibers[thread];
    threadIdx.x = thread;
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, STACK_BYTES);
    swapcontext(&scheduler, &fiber.context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    if (_setjmp(scheduler_place)) return;
    if (fiber.has_begun) _longjmp(fiber.place, 1);
    fiber.has_begun = true;
    setcontext(&fiber.context);
#endif
}

static inline void make(Fiber &fiber)
{
    if (!fiber.stack) fiber.stack = static_cast<char *>(malloc(STACK_BYTES));
    fiber.is_made = true;
    fiber.has_begun = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
}

// Returns 0, or 1 if some threads of a block ended while others waited at a barrier.
static int run_block(bool reverse)
{
    memset(dynamic_shared, 0xA5, sizeof dynamic_shared);
    for (unsigned thread = 0; thread < blockDim.x; ++thread) {
        if (!fibers[thread].is_made) make(fibers[thread]);
        fibers[thread].done = false;
    }
    for (;;) {
        unsigned num_done = 0;
        for (unsigned step = 0; step < blockDim.x; ++step) {
            const unsigned thread = reverse ? blockDim.x - 1 - step : step;
            resume(thread);
            num_done += fibers[thread].done;
        }
        if (num_done == blockDim.x) return 0;
        if (num_done) {     // those that wait stand in the middle of the kernel for good
            for (Fiber &fiber : fibers) fiber.is_made = false;
            return 1;
        }
    }
}

template <size_t...> struct Numbers {};

template <class... A, size_t... I>
static void unpack(void (*kernel)(A...), void **arguments, Numbers<I...>)
{
    kernel(*static_cast<A *>(arguments[I])...);
}

template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;
    static void run(void *self)
    {
        Call *call = static_cast<Call *>(self);
        unpack(call->kernel, call->arguments, Numbers<__integer_pack(sizeof...(A))...>{});
    }
};

// Every kernel argument is read through its own pointer, as cuLaunchKernel does.
template <class... A>
static int launch(void (*kernel)(A...), unsigned grid_x, unsigned grid_y, unsigned block, unsigned shared_bytes, int reverse,
                  void **arguments)
{
    if (block < 1 || block > MAX_THREADS || shared_bytes > SHARED_BYTES) return 2;
    Call<A...> call{kernel, arguments};
    body = Call<A...>::run;
    body_argument = &call;
    blockDim = {block, 1, 1};
    gridDim = {grid_x, grid_y, 1};
    int problem = 0;
    for (blockIdx.y = 0; blockIdx.y < grid_y && !problem; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < grid_x && !problem; ++blockIdx.x) problem = run_block(reverse != 0);
    }
    body_argument = nullptr;
    return problem;
}

}  // namespace cuda_on_host

static inline void __syncthreads() { cuda_on_host::yield(); }
static inline void __syncwarp() { cuda_on_host::yield(); }

// ------------------------------------------------------------------------------------------------ intrinsics
template <class To, class From> static inline To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline int atomicAdd(int *at, int value) // threads of a block take turns, and never within an expression
{
    const int before = *at;
    *at += value;
    return before;
}
static inline void __threadfence() {}                // a block ends before the next one begins
static inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
static inline long long __double_as_longlong(double value) { return bits_as<long long>(value); }
static inline double __longlong_as_double(long long value) { return bits_as<double>(value); }
static inline int __double2loint(double value) { return static_cast<int>(bits_as<unsigned long long>(value) & 0xffffffffu); }
static inline int __double2hiint(double value) { return static_cast<int>(bits_as<unsigned long long>(value) >> 32); }
static inline double __hiloint2double(int high, int low)
{
    return bits_as<double>(static_cast<unsigned long long>(static_cast<unsigned>(high)) << 32 | static_cast<unsigned>(low));
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (by & 31));
}
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which)      // without the bits that repeat a sign
{
    const unsigned long long bytes = static_cast<unsigned long long>(high) << 32 | low;
    unsigned result = 0;
    for (int at = 0; at < 4; ++at) result |= (static_cast<unsigned>(bytes >> 8 * (which >> 4 * at & 7)) & 255u) << 8 * at;
    return result;
}
// Rounded down: the sum rounded to nearest, one step lower where its error, which is exact (Knuth's two-sum), says so.
static inline double __dadd_rd(double a, double b)
{
    const double sum = a + b, b_part = sum - a;
    const double error = (a - (sum - b_part)) + (b - b_part);
    return error < 0.0 ? nextafter(sum, -HUGE_VAL) : sum;
}
static inline float nearest_float(double value) { return static_cast<float>(value); }
static inline unsigned short half_bits(float value) { return bits_as<unsigned short>(static_cast<_Float16>(value)); }
