// Products of matrices and the arithmetic around them, for one thread.
//
// `num` is the type that is multiplied, bfloat16 (-DBF16, needs AVX-512 BF16) or float32. The second matrix of a
// product comes packed: G rows of it interleaved, as the instruction for bfloat16 takes them; weights besides in
// panels of PANEL columns, one panel after another.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, MAX_VECS = 4, MAX_ROWS = 6;  // 24 sums, 4 weights and a factor in 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8, MAX_VECS = 2, MAX_ROWS = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, MAX_VECS = 4, MAX_ROWS = 6;
#else
constexpr int LANES = 4, MAX_VECS = 2, MAX_ROWS = 6;
#endif
constexpr int PANEL = 64, MAX_HEAD = 256;

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

#ifdef BF16
typedef uint16_t num;
constexpr int G = 2;
#else
typedef float num;
constexpr int G = 1;
#endif

inline int packed(int columns) { return (columns + PANEL - 1) / PANEL * PANEL; }

inline vec load(const float *x) { vec v; std::memcpy(&v, x, sizeof v); return v; }
inline void store(float *x, vec v) { std::memcpy(x, &v, sizeof v); }
inline vec fill(float x) { return vec{} + x; }
inline vec greater(vec a, vec b) { return a > b ? a : b; }

// a * b + c, rounded once where the processor can. Left to the compiler, tiles of one row were rounded twice (GCC 12
// for an AMD EPYC), so that the number of threads changed the result.
inline vec multiply_add(vec a, vec b, vec c) {
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

inline float total(vec v) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += v[i];
    return sum;
}

inline float largest(vec v) {
    float most = v[0];
    for (int i = 1; i < LANES; ++i) most = std::max(most, v[i]);
    return most;
}

#ifdef BF16
inline void store_num(num *x, vec v) {
    const __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(x, &narrow, sizeof narrow);
}
inline num to_num(float x) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return num((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
inline void store_num(num *x, vec v) { store(x, v); }
inline num to_num(float x) { return x; }
#endif

// 2^x for x <= 126, to 2e-7 of the value; what is below -126 counts as that.
inline vec exp2(vec x) {
    x = greater(x, fill(-126.0f));
    const vec shifted = x + 12582912.0f;  // its last bits are x rounded
    const vec f = x - (shifted - 12582912.0f);
    vec y = f * 1.5403530e-4f + 1.3333558e-3f;
    y = y * f + 9.6181291e-3f;
    y = y * f + 5.5504109e-2f;
    y = y * f + 2.4022651e-1f;
    y = y * f + 6.9314718e-1f;
    y = y * f + 1.0f;
    return (vec)((ints)y + ((ints)shifted << 23));
}

// x * sigmoid(2u), which is the GELU by tanh(u)
inline vec gelu(vec x) {
    const vec u = (x + 0.044715f * x * x * x) * (-2.0f * 0.7978845608f * 1.442695041f);
    return x / (1.0f + exp2(u > 120.0f ? fill(120.0f) : u));
}

template <int R, int V>
void tile(const num *a, size_t a_row, int segments, size_t a_segment, int groups, const num *b, size_t b_row,
          const float *bias, float *c, size_t c_row) {
    vec sums[R][V];
    for (int v = 0; v < V; ++v)
        for (int r = 0; r < R; ++r) sums[r][v] = bias ? load(bias + v * LANES) : vec{};
    for (int segment = 0; segment < segments; ++segment, a += a_segment) {
        const num *x = a;
        for (int g = 0; g < groups; ++g, x += G, b += b_row) {
#ifdef BF16
            __m512bh weights[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) weights[v] = (__m512bh)_mm512_loadu_si512(b + v * LANES * G);
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                int32_t pair;
                std::memcpy(&pair, x + r * a_row, 4);
                const __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    sums[r][v] = (vec)_mm512_dpbf16_ps((__m512)sums[r][v], factor, weights[v]);
            }
#else
            vec weights[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) weights[v] = load(b + v * LANES);
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const vec factor = fill(x[r * a_row]);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sums[r][v] = multiply_add(factor, weights[v], sums[r][v]);
            }
#endif
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store(c + r * c_row + v * LANES, sums[r][v]);
}

typedef void (*Tile)(const num *, size_t, int, size_t, int, const num *, size_t, const float *, float *, size_t);

template <int R>
inline Tile tile_of(int vecs) {
    if constexpr (MAX_VECS == 4) {
        if (vecs == 4) return tile<R, 4>;
        if (vecs == 3) return tile<R, 3>;
    }
    return vecs == 2 ? tile<R, 2> : tile<R, 1>;
}

inline Tile tile_of(int rows, int vecs) {
    switch (rows) {
        case 1: return tile_of<1>(vecs);
        case 2: return tile_of<2>(vecs);
        case 3: return tile_of<3>(vecs);
        case 4: return tile_of<4>(vecs);
        case 5: return tile_of<5>(vecs);
        default: return tile_of<6>(vecs);
    }
}

// Calls work(first, count) for shares of the rows that are as equal as can be, MAX_ROWS at most.
template <typename Work>
inline void for_tiles(int rows, Work work) {
    const int tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    for (int i = 0; i < tiles; ++i) {
        const int first = rows * i / tiles;
        work(first, rows * (i + 1) / tiles - first);
    }
}

// c [rows, columns] = bias + a b, for at most MAX_ROWS rows and whole vectors of columns.
//
// a  [rows, segments, groups * G]: a_row and a_segment apart;  b  [segments * groups, columns, G]: b_row apart
inline void product(int rows, const num *a, size_t a_row, int segments, size_t a_segment, int groups, const num *b,
                    size_t b_row, int columns, const float *bias, float *c, size_t c_row) {
    for (int column = 0; column < columns; column += MAX_VECS * LANES) {
        const int vecs = std::min(MAX_VECS, (columns - column) / LANES);
        tile_of(rows, vecs)(a, a_row, segments, a_segment, groups, b + size_t(column) * G, b_row,
                            bias ? bias + column : nullptr, c + column, c_row);
    }
}

// c [rows, columns] = bias + a [rows, width] times packed weights.
inline void multiply(int rows, const num *a, size_t a_row, int width, const num *weights, int columns,
                     const float *bias, float *c, size_t c_row) {
    for (int panel = 0; panel < columns; panel += PANEL)
        for_tiles(rows, [&](int first, int count) {
            product(count, a + first * a_row, a_row, 1, 0, width / G, weights + size_t(panel) * width, PANEL * G,
                    std::min(PANEL, columns - panel), bias + panel, c + first * c_row + panel, c_row);
        });
}
