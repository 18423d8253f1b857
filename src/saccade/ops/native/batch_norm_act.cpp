// batch_norm_act, forward and backward: four passes over memory, and the arithmetic between them. README.md of
// ops/batch_norm_act derives it.
#include "batch_norm_act_between.h"
#include "batch_norm_act_rows.h"

namespace {

template <class T>
struct Norm {
    using A = Acc<T>;
    Parameters<A> p;
    Sizes n;
    Layout l;
    double eps;
    bool by_batch;
    int64_t threads;

    // mean, var: written if by_batch, else read. clip_mean, gate: with a squeeze-excitation, else null.
    template <int ACT>
    int forward(const T* x, const T* residual, A* mean, A* var, A* clip_mean, A* gate, T* y) const {
        const int64_t rows = n.rows(), both = n.splits * n.channels;
        Pieces pieces(6 * rows + 2 * both + 2 * n.channels + n.batch * n.hidden);
        if (!pieces.ok()) return SACCADE_NO_MEMORY;
        A *scale = pieces.take<A>(rows), *shift = pieces.take<A>(rows), *factor = pieces.take<A>(rows);
        A *m2 = pieces.take<A>(rows), *own_mean = pieces.take<A>(rows);
        double *inv_std = pieces.take<double>(both), *slope = pieces.take<double>(both);
        double* work = pieces.take<double>(2 * n.channels);
        if (by_batch || n.hidden > 0) {
            if (clip_mean == nullptr) clip_mean = own_mean;
            const int code = row_stats(x, clip_mean, m2, l, threads);
            if (code != SACCADE_OK) return code;
        }
        if (by_batch) join_clips(clip_mean, m2, mean, var, work, n);
        slopes(p.weight, var, eps, inv_std, slope, n);
        if (n.hidden > 0) {
            A *squeezed = pieces.take<A>(rows), *hidden = pieces.take<A>(n.batch * n.hidden);
            squeeze(p, clip_mean, mean, slope, squeezed, hidden, n);
            excite(p, hidden, gate, n);
        }
        affine(p, mean, slope, gate, factor, scale, shift, n);
        if (residual == nullptr) return run(AffineAct<T, ACT, false>{{scale, shift}, x, nullptr, y}, l, threads);
        return run(AffineAct<T, ACT, true>{{scale, shift}, x, residual, y}, l, threads);
    }

    struct Gradients {
        T *x, *g;  // g: null without extra
        A *weight, *bias, *fc[4];
    };

    template <int ACT>
    int backward(const T* grad_y, const T* x, const T* extra, const A* mean, const A* var, const A* clip_mean,
                 const A* gate, const Gradients& grads) const {
        const int64_t rows = n.rows(), both = n.splits * n.channels, layer = n.batch * n.hidden;
        Pieces pieces(11 * rows + 2 * both + 4 * n.channels + 2 * layer);
        if (!pieces.ok()) return SACCADE_NO_MEMORY;
        A *scale = pieces.take<A>(rows), *shift = pieces.take<A>(rows), *factor = pieces.take<A>(rows);
        A *center = pieces.take<A>(rows), *sum_g = pieces.take<A>(rows), *sum_gx = pieces.take<A>(rows);
        A *q = pieces.take<A>(rows), *r = pieces.take<A>(rows), *grad_mean = nullptr;
        double *inv_std = pieces.take<double>(both), *slope = pieces.take<double>(both);
        double* work = pieces.take<double>(4 * n.channels);
        slopes(p.weight, var, eps, inv_std, slope, n);
        affine(p, mean, slope, gate, factor, scale, shift, n);
        for (int64_t b = 0; b < n.batch; ++b)
            memcpy(center + b * n.channels, mean + b % n.splits * n.channels,
                   static_cast<size_t>(n.channels) * sizeof(A));
        const int code =
            extra == nullptr
                ? run_sums(AffineActReduce<T, ACT, false>{{scale, shift, center}, grad_y, x, nullptr, nullptr}, sum_g,
                           sum_gx, l, threads)
                : run_sums(AffineActReduce<T, ACT, true>{{scale, shift, center}, grad_y, x, extra, grads.g}, sum_g,
                           sum_gx, l, threads);
        if (code != SACCADE_OK) return code;
        if (n.hidden > 0) {
            A *squeezed = pieces.take<A>(rows), *grad2 = pieces.take<A>(rows);
            A *hidden = pieces.take<A>(layer), *grad1 = pieces.take<A>(layer);
            grad_mean = pieces.take<A>(rows);
            squeeze(p, clip_mean, mean, slope, squeezed, hidden, n);
            before_sigmoid(sum_g, sum_gx, slope, gate, grad2);
            excite_backward(p, grad2, squeezed, hidden, grad1, grads.fc, grad_mean, n);
        }
        Finish<A>{sum_g, sum_gx, factor, mean,         clip_mean,  grad_mean, inv_std,  slope,
                  q,     r,      grads.weight, grads.bias, work, by_batch,  n}();
        if (extra == nullptr)
            return run(AffineActBackward<T, ACT>{{scale, shift, scale, q, r}, grad_y, x, grads.x}, l, threads);
        return run(AffineActBackward<T, NONE>{{scale, shift, scale, q, r}, grads.g, x, grads.x}, l, threads);
    }

    // The gradient of the gate is the sum over T, H, W of g * norm(x).
    void before_sigmoid(const A* sum_g, const A* sum_gx, const double* slope, const A* gate, A* grad2) const {
        for (int64_t b = 0; b < n.batch; ++b) {
            const double times = p.clip_scale != nullptr ? wide(p.clip_scale[b]) : 1;
            for (int64_t k = 0; k < n.channels; ++k) {
                const int64_t i = b * n.channels + k;
                const double a = slope[b % n.splits * n.channels + k], s = wide(gate[i]);
                const double grad_gate = times * (a * wide(sum_gx[i]) + wide(p.bias[k]) * wide(sum_g[i]));
                grad2[i] = static_cast<A>(grad_gate * s * (1 - s));
            }
        }
    }
};

// f(T{}, Constant<activation>{}) for the element type and the activation
template <int V> struct Constant { static constexpr int value = V; };

template <class T, class F>
int with_activation(int64_t activation, F&& f) {
    switch (activation) {
        case NONE: return f(T{}, Constant<NONE>{});
        case RELU: return f(T{}, Constant<RELU>{});
        case SILU: return f(T{}, Constant<SILU>{});
        default: return SACCADE_UNSUPPORTED;
    }
}

template <class F>
int with_types(int64_t dtype, int64_t activation, F&& f) {
    switch (dtype) {
        case SACCADE_FLOAT32: return with_activation<float>(activation, f);
        case SACCADE_FLOAT64: return with_activation<double>(activation, f);
        case SACCADE_BFLOAT16: return with_activation<BFloat16>(activation, f);
        case SACCADE_FLOAT16: return with_activation<Float16>(activation, f);
        default: return SACCADE_UNSUPPORTED;
    }
}

template <class T> const T* in(const void* p) { return static_cast<const T*>(p); }
template <class T> T* out(void* p) { return static_cast<T*>(p); }

}  // namespace

// Parameters and options of both functions, in the order of native._settings.
#define SACCADE_NORM_SETTINGS                                                                                         \
    const void *weight, const void *bias, const void *fc1, const void *fc1_bias, const void *fc2,                     \
        const void *fc2_bias, const void *clip_scale, double eps, int64_t by_batch, int64_t activation, int64_t dtype, \
        int64_t channels_last, int64_t batch, int64_t channels, int64_t splits, int64_t hidden, int64_t count,        \
        int64_t threads
#define SACCADE_NORM(T)                                                                                               \
    Norm<T> {                                                                                                         \
        {in<Acc<T>>(weight), in<Acc<T>>(bias), in<Acc<T>>(fc1), in<Acc<T>>(fc1_bias), in<Acc<T>>(fc2),                \
         in<Acc<T>>(fc2_bias), in<Acc<T>>(clip_scale)},                                                               \
            Sizes{batch, channels, splits, hidden, count}, layout_of<Acc<T>>(channels_last, batch, channels, count),  \
            eps, by_batch != 0, threads                                                                               \
    }

SACCADE_EXPORT(batch_norm_act_forward)
(const void* x, const void* residual, void* mean, void* var, void* clip_mean, void* gate, void* y,
 SACCADE_NORM_SETTINGS) {
    return with_types(dtype, activation, [&](auto t, auto act) -> int {
        using T = decltype(t);
        using A = Acc<T>;
        return SACCADE_NORM(T).template forward<act.value>(in<T>(x), in<T>(residual), out<A>(mean), out<A>(var),
                                                           out<A>(clip_mean), out<A>(gate), out<T>(y));
    });
}

SACCADE_EXPORT(batch_norm_act_backward)
(const void* grad_y, const void* x, const void* extra, const void* mean, const void* var, const void* clip_mean,
 const void* gate, void* grad_x, void* g, void* grad_weight, void* grad_bias, void* grad_fc1, void* grad_fc1_bias,
 void* grad_fc2, void* grad_fc2_bias, SACCADE_NORM_SETTINGS) {
    return with_types(dtype, activation, [&](auto t, auto act) -> int {
        using T = decltype(t);
        using A = Acc<T>;
        const typename Norm<T>::Gradients grads{
            out<T>(grad_x), out<T>(g), out<A>(grad_weight), out<A>(grad_bias),
            {out<A>(grad_fc1), out<A>(grad_fc1_bias), out<A>(grad_fc2), out<A>(grad_fc2_bias)}};
        return SACCADE_NORM(T).template backward<act.value>(in<T>(grad_y), in<T>(x), in<T>(extra), in<A>(mean),
                                                            in<A>(var), in<A>(clip_mean), in<A>(gate), grads);
    });
}
