// A pass of the transformer over one sample, for a processor; worldplay/engine/native/passes.py calls it.
//
// Each thread takes a share of the tokens through a whole block, so threads meet once a block only: where keys
// and values of all tokens are needed. Sums, norms and the residual stream are float32; what is multiplied is
// `num`, and so are keys and values.
#include "product.h"

namespace {

struct Pass {
    int32_t layers, dim, heads, ffn;              // sizes of the network
    int32_t frames, tokens;                       // of the chunk, and of each frame
    int32_t channels, height, width;              // of a latent
    int32_t patch_rows, patch_cols;               // of a token
    int32_t capacity;                             // keys that `keys` and `values` have room for, whole vectors
    int32_t past, slots;                          // keys before the chunk's own; keys of a head in `cache`
    int32_t threads, commits;                     // commits: write to `cache` and leave out what is not needed
    float eps;
    const float *x;                               // [t c h w]
    float *velocity;                              // [t c h w]
    const float *time;                            // [t e], the time embedding with that of the actions
    const float *block_modulation, *head_modulation;                  // [layers 6 e], [2 e]
    const float *rotary;                          // [t p d/2 2], cosines and sines
    const num *patch_weight, *time_weight, *head_weight;              // packed, see product.h
    const float *patch_bias, *time_bias, *head_bias;
    const num *qkv_weight, *out_weight, *up_weight, *down_weight;     // packed, layer after layer
    const float *qkv_bias, *gain, *out_bias, *up_bias, *down_bias;    // gain: of the norms of q and k, [layers 2 e]
    num *keys, *values;                           // packed: [layers k d/G capacity G], [layers k capacity/G d G]
    num *cache;                                   // KVCache: [layers 2 k slots d]
    float *modulation;                            // [t 6e], worked on here
};

inline void normalise(const float *x, int width, float eps, const float *shift, const float *scale, num *out) {
    vec sum = {}, squares = {};
    for (int i = 0; i < width; i += LANES) sum += load(x + i);
    const float mean = total(sum) / width;
    for (int i = 0; i < width; i += LANES) { vec d = load(x + i) - mean; squares += d * d; }
    const float inverse = 1.0f / std::sqrt(total(squares) / width + eps);
    for (int i = 0; i < width; i += LANES)
        store_num(out + i, (load(x + i) - mean) * inverse * (1.0f + load(scale + i)) + load(shift + i));
}

// Normalises a row of queries or keys over its full width, times gain and factor, and turns pairs of channels.
inline void normalise_and_turn(float *x, int width, float eps, const float *gain, float factor,
                               const float *rotary, int turns) {
    vec squares = {};
    for (int i = 0; i < width; i += LANES) { vec v = load(x + i); squares += v * v; }
    factor /= std::sqrt(total(squares) / width + eps);
    for (int i = 0; i < width; i += 2) {
        const float *turn = rotary + i % turns;
        const float a = x[i] * gain[i] * factor, b = x[i + 1] * gain[i + 1] * factor;
        x[i] = a * turn[0] - b * turn[1];
        x[i + 1] = a * turn[1] + b * turn[0];
    }
}

struct Scratch {
    std::vector<float> stream, wide, scores, modulation;
    std::vector<num> narrow, queries, weights;
    void fit(const Pass &p, int rows) {
        const int patch = p.channels * p.patch_rows * p.patch_cols, widest = std::max({3 * p.dim, p.ffn, packed(patch)});
        modulation.resize(size_t(p.frames) * 6 * p.dim);
        stream.resize(size_t(rows) * p.dim);
        wide.resize(size_t(rows) * widest);
        narrow.resize(size_t(std::max(rows, p.frames)) * std::max({p.dim, p.ffn, patch}));
        queries.resize(size_t(rows) * p.dim);
        scores.resize(size_t(MAX_ROWS) * p.capacity);
        weights.resize(size_t(MAX_ROWS) * p.capacity);
    }
};

// Softmax of rows of scores whose base is 2; weights behind the last key are 0. Returns 1 / the sums.
inline void softmax(const float *scores, num *weights, int rows, int capacity, int keys, float *inverse) {
    for (int r = 0; r < rows; ++r) {
        float *row = const_cast<float *>(scores) + size_t(r) * capacity;
        const int padded = (keys + LANES - 1) / LANES * LANES;
        for (int i = keys; i < padded; ++i) row[i] = -1e30f;
        vec most = load(row);
        for (int i = LANES; i < padded; i += LANES) most = greater(most, load(row + i));
        const float top = largest(most);
        vec sum = {};
        for (int i = 0; i < padded; i += LANES) {
            const vec weight = exp2(load(row + i) - top);
            sum += weight;
            store_num(weights + size_t(r) * capacity + i, weight);
        }
        inverse[r] = 1.0f / total(sum);
    }
}

// out [rows, e] of queries [rows, e] to all keys, head by head.
void attend(const Pass &p, int layer, int rows, int keys, Scratch &s, num *out) {
    const int d = p.dim / p.heads, padded = (keys + LANES - 1) / LANES * LANES;
    float sums[MAX_ROWS], attended[MAX_ROWS * MAX_HEAD];
    for (int head = 0; head < p.heads; ++head) {
        const num *k = p.keys + size_t(layer * p.heads + head) * d * p.capacity;
        const num *v = p.values + size_t(layer * p.heads + head) * d * p.capacity;
        for_tiles(rows, [&](int first, int count) {
            const num *q = s.queries.data() + size_t(first) * p.dim + head * d;
            product(count, q, p.dim, 1, 0, d / G, k, size_t(p.capacity) * G, padded, nullptr, s.scores.data(),
                    p.capacity);
            softmax(s.scores.data(), s.weights.data(), count, p.capacity, keys, sums);
            product(count, s.weights.data(), p.capacity, 1, 0, padded / G, v, size_t(d) * G, d, nullptr, attended, d);
            for (int r = 0; r < count; ++r)
                for (int i = 0; i < d; i += LANES)
                    store_num(out + size_t(first + r) * p.dim + head * d + i, load(attended + r * d + i) * sums[r]);
        });
    }
}

// Writes keys and values of a token, row [3e] of q, k and v, to their place among the packed ones, and to the cache.
inline void keep(const Pass &p, int layer, int token, const float *row) {
    const int d = p.dim / p.heads, at = p.past + token;
    for (int head = 0; head < p.heads; ++head) {
        const float *k = row + p.dim + head * d, *v = k + p.dim;
        num *keys = p.keys + size_t(layer * p.heads + head) * d * p.capacity;
        num *values = p.values + size_t(layer * p.heads + head) * d * p.capacity;
        for (int i = 0; i < d; ++i) {
            keys[(size_t(i / G) * p.capacity + at) * G + i % G] = to_num(k[i]);
            values[(size_t(at / G) * d + i) * G + at % G] = to_num(v[i]);
        }
        if (p.commits) {
            num *own = p.cache + (size_t(layer * 2) * p.heads + head) * p.slots * d + size_t(at) * d;
            num *own_values = own + size_t(p.heads) * p.slots * d;
            for (int i = 0; i < d; i += LANES) {
                store_num(own + i, load(k + i));
                store_num(own_values + i, load(v + i));
            }
        }
    }
}

void patches(const Pass &p, int first, int rows, num *out, int width) {
    const int columns = p.width / p.patch_cols;
    for (int r = 0; r < rows; ++r) {
        const int token = (first + r) % p.tokens, frame = (first + r) / p.tokens;
        const int y = token / columns * p.patch_rows, x = token % columns * p.patch_cols;
        num *to = out + size_t(r) * width;
        for (int c = 0; c < p.channels; ++c)
            for (int m = 0; m < p.patch_rows; ++m)
                for (int n = 0; n < p.patch_cols; ++n)
                    *to++ = to_num(p.x[((size_t(frame) * p.channels + c) * p.height + y + m) * p.width + x + n]);
    }
}

void unpatch(const Pass &p, int first, int rows, const float *values, int stride) {
    const int columns = p.width / p.patch_cols;
    for (int r = 0; r < rows; ++r) {
        const int token = (first + r) % p.tokens, frame = (first + r) / p.tokens;
        const int y = token / columns * p.patch_rows, x = token % columns * p.patch_cols;
        const float *from = values + size_t(r) * stride;
        for (int m = 0; m < p.patch_rows; ++m)
            for (int n = 0; n < p.patch_cols; ++n)
                for (int c = 0; c < p.channels; ++c)
                    p.velocity[((size_t(frame) * p.channels + c) * p.height + y + m) * p.width + x + n] = *from++;
    }
}

// This thread's share of the rows [t 6e] that the noise level and the actions give every block.
void share_modulation(const Pass &p, int thread, int threads, num *narrow) {
    for (int i = 0; i < p.frames * p.dim; i += LANES) {
        const vec x = load(p.time + i);
        store_num(narrow + i, x / (1.0f + exp2(greater(x, fill(-80.0f)) * -1.442695041f)));
    }
    const int panels = 6 * p.dim / LANES, first = panels * thread / threads, last = panels * (thread + 1) / threads;
    for (int i = first * LANES; i < last * LANES; i += LANES)
        for_tiles(p.frames, [&](int row, int count) {
            product(count, narrow + size_t(row) * p.dim, p.dim, 1, 0, p.dim / G,
                    p.time_weight + size_t(i / PANEL) * PANEL * p.dim + i % PANEL * G, PANEL * G, LANES,
                    p.time_bias + i, p.modulation + size_t(row) * 6 * p.dim + i, 6 * p.dim);
        });
}

void run(const Pass &p, int thread, int threads) {
    const int all = p.frames * p.tokens, e = p.dim, d = e / p.heads, keys = p.past + all;
    const int first = all * thread / threads, rows = all * (thread + 1) / threads - first;
    thread_local Scratch s;
    s.fit(p, rows);
    float *x = s.stream.data(), *wide = s.wide.data();
    num *narrow = s.narrow.data();
    const int patch = p.channels * p.patch_rows * p.patch_cols;
    float *modulation = s.modulation.data();
    const auto row_of = [&](int r, int which) {
        return modulation + (size_t((first + r) / p.tokens) * 6 + which) * e;
    };

    share_modulation(p, thread, threads, narrow);
    #pragma omp barrier
    patches(p, first, rows, narrow, patch);
    multiply(rows, narrow, patch, patch, p.patch_weight, e, p.patch_bias, x, e);
    for (int layer = 0; layer < p.layers; ++layer) {
        const float *own = p.block_modulation + size_t(layer) * 6 * e;
        for (int frame = 0; frame < p.frames; ++frame)
            for (int i = 0; i < 6 * e; i += LANES) {
                const size_t at = size_t(frame) * 6 * e + i;
                store(modulation + at, load(own + i) + load(p.modulation + at));
            }
        for (int r = 0; r < rows; ++r)
            normalise(x + size_t(r) * e, e, p.eps, row_of(r, 0), row_of(r, 1),
                      narrow + size_t(r) * e);
        multiply(rows, narrow, e, e, p.qkv_weight + size_t(layer) * packed(3 * e) * e, 3 * e,
                 p.qkv_bias + size_t(layer) * packed(3 * e), wide, 3 * e);
        const float *gain = p.gain + size_t(layer) * 2 * e;
        for (int r = 0; r < rows; ++r) {
            float *row = wide + size_t(r) * 3 * e;
            const float *rotary = p.rotary + size_t(first + r) * d;
            // the scores are exponents of 2
            normalise_and_turn(row, e, p.eps, gain, 1.442695041f / std::sqrt(float(d)), rotary, d);
            normalise_and_turn(row + e, e, p.eps, gain + e, 1.0f, rotary, d);
            for (int i = 0; i < e; i += LANES) store_num(s.queries.data() + size_t(r) * e + i, load(row + i));
            keep(p, layer, first + r, row);
        }
        if (p.commits && layer == p.layers - 1) return;
        #pragma omp barrier
        attend(p, layer, rows, keys, s, narrow);
        multiply(rows, narrow, e, e, p.out_weight + size_t(layer) * packed(e) * e, e,
                 p.out_bias + size_t(layer) * packed(e), wide, e);
        for (int r = 0; r < rows; ++r) {
            float *row = x + size_t(r) * e;
            const float *gate = row_of(r, 2);
            for (int i = 0; i < e; i += LANES)
                store(row + i, load(row + i) + load(gate + i) * load(wide + size_t(r) * e + i));
            normalise(row, e, p.eps, row_of(r, 3), row_of(r, 4),
                      narrow + size_t(r) * e);
        }
        multiply(rows, narrow, e, e, p.up_weight + size_t(layer) * packed(p.ffn) * e, p.ffn,
                 p.up_bias + size_t(layer) * packed(p.ffn), wide, p.ffn);
        for (size_t i = 0; i < size_t(rows) * p.ffn; i += LANES) store_num(narrow + i, gelu(load(wide + i)));
        multiply(rows, narrow, p.ffn, p.ffn, p.down_weight + size_t(layer) * packed(e) * p.ffn, e,
                 p.down_bias + size_t(layer) * packed(e), wide, e);
        for (int r = 0; r < rows; ++r) {
            const float *gate = row_of(r, 5);
            for (int i = 0; i < e; i += LANES) {
                float *at = x + size_t(r) * e + i;
                store(at, load(at) + load(gate + i) * load(wide + size_t(r) * e + i));
            }
        }
    }
    for (int frame = 0; frame < p.frames; ++frame)
        for (int i = 0; i < 2 * e; i += LANES)
            store(modulation + size_t(frame) * 6 * e + i,
                  load(p.head_modulation + i) + load(p.time + size_t(frame) * e + i % e));
    for (int r = 0; r < rows; ++r)
        normalise(x + size_t(r) * e, e, p.eps, row_of(r, 0), row_of(r, 1), narrow + size_t(r) * e);
    multiply(rows, narrow, e, e, p.head_weight, packed(patch), p.head_bias, wide, packed(patch));
    unpatch(p, first, rows, wide, packed(patch));
}

}  // namespace

extern "C" void transformer_pass(const Pass *p) {
    const int threads = std::min(p->threads, p->frames * p->tokens);
    #pragma omp parallel num_threads(threads)
    run(*p, omp_get_thread_num(), omp_get_num_threads());
}

// Packs the keys and values of the past from the cache: before the first pass of a chunk.
extern "C" void transformer_past(const Pass *p) {
    const int d = p->dim / p->heads;
    #pragma omp parallel for num_threads(p->threads) schedule(static)
    for (int each = 0; each < p->layers * p->heads; ++each) {
        const int layer = each / p->heads, head = each % p->heads;
        const num *k = p->cache + (size_t(layer * 2) * p->heads + head) * p->slots * d;
        const num *v = k + size_t(p->heads) * p->slots * d;
        num *keys = p->keys + size_t(each) * d * p->capacity, *values = p->values + size_t(each) * d * p->capacity;
        constexpr int BLOCK = 16;  // keys, so that what is read and written stays in the nearest cache
        for (int block = 0; block < p->past; block += BLOCK) {
            const int end = std::min(block + BLOCK, p->past);
            for (int i = 0; i < d; i += G)
                for (int at = block; at < end; ++at)
                    std::memcpy(keys + (size_t(i / G) * p->capacity + at) * G, k + size_t(at) * d + i, G * sizeof(num));
            for (int pair = block; pair < end; pair += G)
                for (int i = 0; i < d; ++i)
                    for (int g = 0; g < std::min(G, end - pair); ++g)
                        values[(size_t(pair / G) * d + i) * G + g] = v[size_t(pair + g) * d + i];
        }
        // behind the last key weights are tiny, not 0: what a broken frame left there would come back
        const int keys_now = p->past + p->frames * p->tokens;
        for (int at = keys_now; at < (keys_now + LANES - 1) / LANES * LANES; ++at)
            for (int i = 0; i < d; ++i) values[(size_t(at / G) * d + i) * G + at % G] = 0;
    }
}
