// Between the passes of batch_norm_act: arithmetic on (B, C) and smaller tensors.
//
// ops/batch_norm_act/triton.py has the same for the GPU. Clip b is in split b mod S. Per-channel arithmetic is double,
// the layers of the squeeze-excitation use A.
#pragma once

#include "vec_exp.h"

namespace {

struct Sizes {
    int64_t batch, channels, splits, hidden, count;  // hidden: 0 without a squeeze-excitation

    int64_t rows() const { return batch * channels; }
    double clips() const { return static_cast<double>(batch / splits); }           // of a split
    double positions() const { return static_cast<double>(max_of(count, 1)); }
};

// The caller's parameters, all of type A: (C,), (C,), (H, C), (H,), (C, H), (C,), (B,).
template <class A>
struct Parameters {
    const A *weight, *bias, *fc1, *fc1_bias, *fc2, *fc2_bias, *clip_scale;
};

template <class A> SACCADE_INLINE double wide(A x) { return static_cast<double>(x); }

// Allocates pieces of scratch memory.
class Pieces {
   public:
    explicit Pieces(int64_t values) : scratch_(values * 8), next_(0) {}
    bool ok() const { return scratch_.ok(); }
    template <class P> P* take(int64_t values) {
        P* piece = reinterpret_cast<P*>(scratch_.as<double>() + next_);
        next_ += values;
        return piece;
    }

   private:
    Scratch scratch_;
    int64_t next_;
};

// Mean and biased variance (S, C) of each split, from those of its clips.
template <class A>
void join_clips(const A* clip_mean, const A* m2, A* mean, A* var, double* work, const Sizes& n) {
    double *middle = work, *squares = work + n.channels;
    for (int64_t s = 0; s < n.splits; ++s) {
        for (int64_t k = 0; k < n.channels; ++k) middle[k] = squares[k] = 0;
        for (int64_t b = s; b < n.batch; b += n.splits)
            for (int64_t k = 0; k < n.channels; ++k) middle[k] += wide(clip_mean[b * n.channels + k]);
        for (int64_t k = 0; k < n.channels; ++k) middle[k] /= n.clips();
        for (int64_t b = s; b < n.batch; b += n.splits)
            for (int64_t k = 0; k < n.channels; ++k) {
                const double away = wide(clip_mean[b * n.channels + k]) - middle[k];
                squares[k] += wide(m2[b * n.channels + k]) + n.positions() * away * away;
            }
        for (int64_t k = 0; k < n.channels; ++k) {
            mean[s * n.channels + k] = static_cast<A>(middle[k]);
            var[s * n.channels + k] = static_cast<A>(squares[k] / (n.clips() * n.positions()));
        }
    }
}

// 1 / sqrt(var + eps) and weight times that, (S, C).
template <class A>
void slopes(const A* weight, const A* var, double eps, double* inv_std, double* slope, const Sizes& n) {
    for (int64_t s = 0; s < n.splits; ++s)
        for (int64_t k = 0; k < n.channels; ++k) {
            const int64_t i = s * n.channels + k;
            inv_std[i] = 1 / __builtin_sqrt(wide(var[i]) + eps);
            slope[i] = wide(weight[k]) * inv_std[i];
        }
}

// Scale and shift (B, C) of norm, gate and clip scale combined; `factor` becomes gate times clip scale.
template <class A>
void affine(const Parameters<A>& p, const A* mean, const double* slope, const A* gate, A* factor, A* scale, A* shift,
            const Sizes& n) {
    for (int64_t b = 0; b < n.batch; ++b) {
        const int64_t row = b * n.channels, split = b % n.splits * n.channels;
        const A times = p.clip_scale != nullptr ? p.clip_scale[b] : 1;
        for (int64_t k = 0; k < n.channels; ++k) factor[row + k] = times;
        if (gate != nullptr)
            for (int64_t k = 0; k < n.channels; ++k) factor[row + k] *= gate[row + k];
        for (int64_t k = 0; k < n.channels; ++k) {
            const double f = wide(factor[row + k]), a = slope[split + k];
            scale[row + k] = static_cast<A>(f * a);
            shift[row + k] = static_cast<A>(f * (wide(p.bias[k]) - a * wide(mean[split + k])));
        }
    }
}

template <class A>
A dot(const A* a, const A* b, int64_t length) {
    constexpr int N = Vec<A>::N;
    typename Vec<A>::V sum = splat<A>(0);
    int64_t i = 0;
    for (; i + N <= length; i += N) sum += load(a + i) * load(b + i);
    if (i < length) sum += load_part(a + i, static_cast<int>(length - i)) * load_part(b + i, static_cast<int>(length - i));
    return sum_of<A>(sum);
}

template <class A>
SACCADE_INLINE void add_times(A* sum, const A* values, A times, int64_t length) {
    for (int64_t i = 0; i < length; ++i) sum[i] += times * values[i];
}

// The mean of norm(x) over T, H, W, (B, C), and the hidden layer, (B, H).
template <class A>
void squeeze(const Parameters<A>& p, const A* clip_mean, const A* mean, const double* slope, A* squeezed, A* hidden,
             const Sizes& n) {
    for (int64_t b = 0; b < n.batch; ++b) {
        A* row = squeezed + b * n.channels;
        const int64_t split = b % n.splits * n.channels;
        for (int64_t k = 0; k < n.channels; ++k)
            row[k] = static_cast<A>(
                slope[split + k] * (wide(clip_mean[b * n.channels + k]) - wide(mean[split + k])) + wide(p.bias[k]));
        for (int64_t h = 0; h < n.hidden; ++h) {
            const A u = p.fc1_bias[h] + dot(p.fc1 + h * n.channels, row, n.channels);
            hidden[b * n.hidden + h] = u <= 0 ? 0 : u;  // NaN stays
        }
    }
}

template <class A>
void excite(const Parameters<A>& p, const A* hidden, A* gate, const Sizes& n) {
    constexpr int N = Vec<A>::N;
    for (int64_t b = 0; b < n.batch; ++b)
        for (int64_t k = 0; k < n.channels; ++k)
            gate[b * n.channels + k] = p.fc2_bias[k] + dot(p.fc2 + k * n.hidden, hidden + b * n.hidden, n.hidden);
    for (int64_t i = 0; i < n.rows(); i += N) {
        const int part = static_cast<int>(min_of(N, n.rows() - i));
        typename Vec<A>::V u[1] = {load_part(gate + i, part == N ? 0 : part)}, s[1];
        if (part == N) u[0] = load(gate + i);
        sigmoid<A>(u, s);
        part == N ? store(gate + i, s[0]) : store_part(gate + i, s[0], part);
    }
}

// From grad2 (B, C), the gradient before the sigmoid: gradients of the four parameters and of the squeezed means (B, C).
template <class A>
void excite_backward(const Parameters<A>& p, const A* grad2, const A* squeezed, const A* hidden, A* grad1,
                     A* const (&grads)[4], A* grad_mean, const Sizes& n) {
    const int64_t C = n.channels, H = n.hidden;
    A *fc1 = grads[0], *fc1_bias = grads[1], *fc2 = grads[2], *fc2_bias = grads[3];
    memset(fc1, 0, static_cast<size_t>(H * C) * sizeof(A));
    memset(fc1_bias, 0, static_cast<size_t>(H) * sizeof(A));
    memset(fc2, 0, static_cast<size_t>(H * C) * sizeof(A));
    memset(fc2_bias, 0, static_cast<size_t>(C) * sizeof(A));
    memset(grad1, 0, static_cast<size_t>(n.batch * H) * sizeof(A));
    memset(grad_mean, 0, static_cast<size_t>(n.rows()) * sizeof(A));
    for (int64_t b = 0; b < n.batch; ++b) {
        const A *own2 = grad2 + b * C, *own_hidden = hidden + b * H;
        A* own1 = grad1 + b * H;
        for (int64_t k = 0; k < C; ++k) {
            add_times(own1, p.fc2 + k * H, own2[k], H);
            add_times(fc2 + k * H, own_hidden, own2[k], H);
        }
        add_times<A>(fc2_bias, own2, 1, C);
        for (int64_t h = 0; h < H; ++h) {
            if (own_hidden[h] <= 0) own1[h] = 0;
            add_times(fc1 + h * C, squeezed + b * C, own1[h], C);
            add_times(grad_mean + b * C, p.fc1 + h * C, own1[h], C);
        }
        add_times<A>(fc1_bias, own1, 1, H);
    }
}

// Q and R (B, C) for the last pass, and the gradients of weight and bias (C,), from the sums over each clip.
template <class A>
struct Finish {
    const A *sum_g, *sum_gx, *factor, *mean, *clip_mean, *grad_mean;  // the last two: null without a squeeze
    const double *inv_std, *slope;
    A *q, *r, *grad_weight, *grad_bias;
    double* work;  // 4 C
    bool by_batch;
    Sizes n;

    void operator()() const {
        double *all_x = work + 2 * n.channels, *all = work + 3 * n.channels;
        for (int64_t k = 0; k < n.channels; ++k) all_x[k] = all[k] = 0;
        for (int64_t s = 0; s < n.splits; ++s) {
            sums_of(s);
            coefficients_of(s);
            for (int64_t k = 0; k < n.channels; ++k) all[k] += work[k], all_x[k] += work[n.channels + k];
        }
        for (int64_t k = 0; k < n.channels; ++k) {
            grad_weight[k] = static_cast<A>(all_x[k]);
            grad_bias[k] = static_cast<A>(all[k]);
        }
    }

    // Gradients of bias and weight that come from this split.
    void sums_of(int64_t s) const {
        double *z = work, *zx = work + n.channels;
        for (int64_t k = 0; k < n.channels; ++k) z[k] = zx[k] = 0;
        for (int64_t b = s; b < n.batch; b += n.splits) {
            const int64_t row = b * n.channels;
            for (int64_t k = 0; k < n.channels; ++k) {
                z[k] += wide(factor[row + k]) * wide(sum_g[row + k]);
                zx[k] += wide(factor[row + k]) * wide(sum_gx[row + k]);
            }
            if (grad_mean == nullptr) continue;
            for (int64_t k = 0; k < n.channels; ++k) {
                z[k] += wide(grad_mean[row + k]);
                zx[k] += wide(grad_mean[row + k]) * (wide(clip_mean[row + k]) - wide(mean[s * n.channels + k]));
            }
        }
        for (int64_t k = 0; k < n.channels; ++k) zx[k] *= inv_std[s * n.channels + k];
    }

    void coefficients_of(int64_t s) const {
        const double *z = work, *zx = work + n.channels, *own = slope + s * n.channels, *inv = inv_std + s * n.channels;
        const double share = by_batch ? 1 / (n.clips() * n.positions()) : 0;
        for (int64_t b = s; b < n.batch; b += n.splits)
            for (int64_t k = 0; k < n.channels; ++k) {
                const int64_t i = b * n.channels + k;
                const double slant = -own[k] * inv[k] * zx[k] * share;
                const double flat = grad_mean != nullptr ? wide(grad_mean[i]) / n.positions() : 0;
                q[i] = static_cast<A>(own[k] * (flat - z[k] * share) - slant * wide(mean[s * n.channels + k]));
                r[i] = static_cast<A>(slant);
            }
    }
};

}  // namespace
