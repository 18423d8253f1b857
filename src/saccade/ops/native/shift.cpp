// shift3d: every channel of a clip moved by a real number of frames and pixels. The definition is in shift/naive.py.
//
// The shift is constant per channel, so whole rows or planes are blended with the same few weights. Backward goes by
// the input's positions: with the output's gradient g mixed in time and height to P, and its derivatives P_t and P_h,
// the input gradient is P spread over the columns, and the shift gradient is the product of x with P_t and P_h spread,
// and with the difference of P's neighbours. So g, x and grad_x pass once, whatever is wanted.
//
// Each channel of each clip stores its own partial sum of the shift gradient, and these are added in the order of the
// clips: the result does not depend on the threads.
#include "shift_planes.h"
#include "shift_strided.h"

namespace {

constexpr int64_t GROUP = 8192;  // elements

// Runs body(channel, rows, planes) for every channel of every clip, with scratch memory per thread, zero at first.
// Several short channels form one task, to keep the scheduling cost low.
template <class A, class F>
int for_channels(const Sizes& sizes, int64_t threads, F&& body) {
    int64_t rows = rows_bytes<A>(sizes), bytes = rows + round_up(max_of(planes_bytes<A>(sizes), strided_bytes<A>(sizes)), 64);
    int64_t channels = sizes.clips * sizes.channels;
    int64_t group = max_of(1, GROUP / max_of(1, sizes.in[0] * sizes.in_plane()));
    int64_t tasks = (channels + group - 1) / group;
    threads = max_of(1, min_of(threads, tasks));
    Scratch memory(bytes * threads);
    if (!memory.ok()) return SACCADE_NO_MEMORY;
    memset(memory.as<char>(), 0, static_cast<size_t>(bytes * threads));
    parallel(tasks, threads, [&](int64_t task, int thread) {
        char* mine = memory.as<char>() + thread * bytes;
        for (int64_t channel = task * group; channel < min_of(channels, (task + 1) * group); ++channel)
            body(channel, reinterpret_cast<A*>(mine), reinterpret_cast<A*>(mine + rows));
    });
    return SACCADE_OK;
}

template <class T>
int forward(const Sizes& sizes, const T* x, const Acc<T>* shift, T* out, bool quantize, int64_t threads) {
    using A = Acc<T>;
    int64_t in_size = sizes.in[0] * sizes.in_plane(), out_size = sizes.out[0] * sizes.out_plane();
    return for_channels<A>(sizes, threads, [&](int64_t channel, A* rows, A* planes) {
        Axis<A> axes[3];
        T* to = out + channel * out_size;
        const T* from = x + channel * in_size;
        if (!read_shift(shift, sizes, channel % sizes.channels, quantize, axes))
            fill(to, out_size, from_acc<T>(A(__builtin_nanf(""))));
        else if (planes_fit(sizes) && near_enough(axes, sizes, false)) forward_planes(sizes, axes, from, to, planes);
        else forward_rows(sizes, axes, from, to, rows);
    });
}

template <class T, bool X, bool S, bool QUANTIZED>
int backward(const Sizes& sizes, const T* grad, const T* x, const Acc<T>* shift, T* grad_x, Acc<T>* grad_shift,
             bool quantize, int64_t threads) {
    using A = Acc<T>;
    int64_t in_size = sizes.in[0] * sizes.in_plane(), out_size = sizes.out[0] * sizes.out_plane();
    Scratch parts(S ? sizes.clips * sizes.channels * 3 * int64_t(sizeof(double)) : 0);
    if (!parts.ok()) return SACCADE_NO_MEMORY;
    int code = for_channels<A>(sizes, threads, [&](int64_t channel, A* rows, A* planes) {
        Axis<A> axes[3];
        double* part = S ? parts.as<double>() + channel * 3 : nullptr;
        T* to = X ? grad_x + channel * in_size : nullptr;
        const T *from = S ? x + channel * in_size : nullptr, *g = grad + channel * out_size;
        if (!read_shift(shift, sizes, channel % sizes.channels, quantize, axes)) {
            if (X) fill(to, in_size, from_acc<T>(A(__builtin_nanf(""))));
            if (S) fill(part, 3, __builtin_nan(""));
        } else if (planes_fit(sizes) && near_enough(axes, sizes, true)) {
            backward_planes<T, X, S, QUANTIZED>(sizes, axes, g, from, to, part, planes);
        } else if (strided_fit(sizes)) {
            backward_strided<T, X, S, QUANTIZED>(sizes, axes, g, from, to, part, rows, planes);
        } else {
            backward_rows<T, X, S, QUANTIZED>(sizes, axes, g, from, to, part, rows);
        }
    });
    if (!S || code != SACCADE_OK) return code;
    for (int64_t c = 0; c < sizes.channels; ++c)
        for (int a = 0; a < 3; ++a) {
            double sum = 0;
            for (int64_t b = 0; b < sizes.clips; ++b) sum += parts.as<double>()[(b * sizes.channels + c) * 3 + a];
            grad_shift[a * sizes.channels + c] = A(sum);
        }
    return SACCADE_OK;
}

template <class T>
int backward_of(const Sizes& sizes, const void* grad, const void* x, const void* shift, void* grad_x,
                void* grad_shift, bool quantize, int64_t threads) {
    using A = Acc<T>;
    auto run = [&](auto kernel, bool rounded) {
        return kernel(sizes, static_cast<const T*>(grad), static_cast<const T*>(x), static_cast<const A*>(shift),
                      static_cast<T*>(grad_x), static_cast<A*>(grad_shift), rounded, threads);
    };
    if (!grad_shift) return run(backward<T, true, false, false>, quantize);
    if (!grad_x) return run(backward<T, false, true, false>, false);  // the shift gradient ignores rounding
    return quantize ? run(backward<T, true, true, true>, true) : run(backward<T, true, true, false>, false);
}

}  // namespace

// x (B, C, T, H, W), shift (3, C) in double for double, else float; out (B, C, T', H', W').
SACCADE_EXPORT(shift3d_forward)(int64_t dtype, const void* x, const void* shift, void* out, int64_t clips,
                                int64_t channels, int64_t in_t, int64_t in_h, int64_t in_w, int64_t out_t,
                                int64_t out_h, int64_t out_w, int64_t stride_t, int64_t stride_h, int64_t stride_w,
                                int64_t pad_t, int64_t pad_h, int64_t pad_w, int64_t quantize, int64_t threads) {
    Sizes sizes{clips, channels, {in_t, in_h, in_w}, {out_t, out_h, out_w}, {stride_t, stride_h, stride_w},
                {pad_t, pad_h, pad_w}};
    auto run = [&](auto* element) {
        using T = __typeof__(*element);
        return forward<T>(sizes, static_cast<const T*>(x), static_cast<const Acc<T>*>(shift), static_cast<T*>(out),
                          quantize != 0, threads);
    };
    switch (dtype) {
        case SACCADE_FLOAT32: return run(static_cast<float*>(nullptr));
        case SACCADE_FLOAT64: return run(static_cast<double*>(nullptr));
        case SACCADE_BFLOAT16: return run(static_cast<BFloat16*>(nullptr));
        case SACCADE_FLOAT16: return run(static_cast<Float16*>(nullptr));
        default: return SACCADE_UNSUPPORTED;
    }
}

// grad is the output's gradient. grad_x or grad_shift may be null: not wanted. Without grad_shift, x is not read.
SACCADE_EXPORT(shift3d_backward)(int64_t dtype, const void* grad, const void* x, const void* shift, void* grad_x,
                                 void* grad_shift, int64_t clips, int64_t channels, int64_t in_t, int64_t in_h,
                                 int64_t in_w, int64_t out_t, int64_t out_h, int64_t out_w, int64_t stride_t,
                                 int64_t stride_h, int64_t stride_w, int64_t pad_t, int64_t pad_h, int64_t pad_w,
                                 int64_t quantize, int64_t threads) {
    Sizes sizes{clips, channels, {in_t, in_h, in_w}, {out_t, out_h, out_w}, {stride_t, stride_h, stride_w},
                {pad_t, pad_h, pad_w}};
    bool rounded = quantize != 0;
    switch (dtype) {
        case SACCADE_FLOAT32: return backward_of<float>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        case SACCADE_FLOAT64: return backward_of<double>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        case SACCADE_BFLOAT16: return backward_of<BFloat16>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        case SACCADE_FLOAT16: return backward_of<Float16>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        default: return SACCADE_UNSUPPORTED;
    }
}
