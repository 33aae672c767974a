// What cuDNN and cuBLAS do not do, one kernel an operation, on f32 maps [n, c, h w]. Sums are made in one order, so that a run can be
// repeated bit for bit: nothing is added atomically.

#define EACH(i, count) \
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= (count)) return
#define PUT(place, value, more) place = (more) ? place + (value) : (value)

__device__ __forceinline__ float warp_sum(float v) {
    for (int lane = 16; lane; lane >>= 1) v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

// The sum over a block, known to all its threads.
__device__ __forceinline__ float block_sum(float v) {
    __shared__ float parts[32];
    v = warp_sum(v);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = v;
    __syncthreads();
    float sum = 0;
    for (unsigned k = 0; k < blockDim.x >> 5; k++) sum += parts[k];
    return sum;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + __expf(-x)); }

extern "C" {

__global__ void silu(const float* x, float* y, unsigned count) {
    EACH(i, count);
    y[i] = x[i] * sigmoid(x[i]);
}

__global__ void silu_back(const float* x, const float* dy, float* dx, unsigned count, int more) {
    EACH(i, count);
    float s = sigmoid(x[i]);
    PUT(dx[i], dy[i] * s * (1.f + x[i] * (1.f - s)), more);
}

__global__ void add(const float* a, const float* b, float* y, unsigned count) {
    EACH(i, count);
    y[i] = a[i] + b[i];
}

__global__ void accumulate(float* y, const float* x, unsigned count) {
    EACH(i, count);
    y[i] += x[i];
}

// y[n, c, p] += bias[c] + vector[n, c] + residual[n, c, p]; the last two may be missing.
__global__ void finish(float* y, const float* bias, const float* vector, const float* residual, unsigned c, unsigned hw, unsigned count) {
    EACH(i, count);
    unsigned row = i / hw;
    float v = y[i] + bias[row % c];
    if (vector) v += vector[row];
    if (residual) v += residual[i];
    y[i] = v;
}

// One warp a row: y[row] = scale * sum of x[row, ..].
__global__ void row_sums(const float* x, float* y, unsigned rows, unsigned length, float scale) {
    unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) >> 5, lane = threadIdx.x & 31;
    if (row >= rows) return;
    float sum = 0;
    for (unsigned p = lane; p < length; p += 32) sum += x[(size_t)row * length + p];
    sum = warp_sum(sum);
    if (lane == 0) y[row] = scale * sum;
}

// y[c] += sum over n of x[n, c]; a block holds 32 columns by 8 shares of the rows.
__global__ void column_sums(const float* x, float* y, unsigned n, unsigned c) {
    __shared__ float parts[8][33];
    unsigned column = blockIdx.x * 32 + (threadIdx.x & 31), share = threadIdx.x >> 5;
    float sum = 0;
    if (column < c)
        for (unsigned k = share; k < n; k += 8) sum += x[k * c + column];
    parts[share][threadIdx.x & 31] = sum;
    __syncthreads();
    if (share == 0 && column < c) {
        for (unsigned k = 1; k < 8; k++) sum += parts[k][threadIdx.x & 31];
        y[column] += sum;
    }
}

// y[row, p] = scale * x[row]
__global__ void spread_rows(const float* x, float* y, unsigned length, float scale, unsigned count, int more) {
    EACH(i, count);
    PUT(y[i], scale * x[i / length], more);
}

// A block of threads for each group of each image; stats: mean and 1/deviation of each.
__global__ void group_norm(const float* x, float* y, float* stats, const float* weight, const float* bias, const float* vector,
                           unsigned c, unsigned hw, unsigned groups, float eps, int silu) {
    unsigned n = blockIdx.x / groups, first = blockIdx.x % groups * (c / groups), length = c / groups * hw;
    x += (size_t)blockIdx.x * length;
    y += (size_t)blockIdx.x * length;
    float sum = 0;
    for (unsigned i = threadIdx.x; i < length; i += blockDim.x) sum += x[i];
    float mean = block_sum(sum) / length;
    sum = 0;
    for (unsigned i = threadIdx.x; i < length; i += blockDim.x) sum += (x[i] - mean) * (x[i] - mean);
    float r = rsqrtf(block_sum(sum) / length + eps);
    if (threadIdx.x == 0) {
        stats[2 * blockIdx.x] = mean;
        stats[2 * blockIdx.x + 1] = r;
    }
    for (unsigned i = threadIdx.x; i < length; i += blockDim.x) {
        unsigned channel = first + i / hw;
        float v = (x[i] - mean) * r * weight[channel] + bias[channel];
        if (vector) v = v * (1.f + vector[2 * n * c + channel]) + vector[(2 * n + 1) * c + channel];
        y[i] = silu ? v * sigmoid(v) : v;
    }
}

// With u what SiLU is applied to, a and b the sums over a channel's pixels of du and of du times the normalised x: all gradients
// follow from those two. dweight and dbias get [n, c], to be summed over the images; dvector [n, 2 c].
__global__ void group_norm_back(const float* x, const float* dy, const float* stats, const float* weight, const float* bias,
                                const float* vector, float* dx, float* dweight, float* dbias, float* dvector,
                                unsigned c, unsigned hw, unsigned groups, int silu, int more, int more_vector) {
    __shared__ float total[2];
    __shared__ float shares[2][32];
    unsigned n = blockIdx.x / groups, each = c / groups, first = blockIdx.x % groups * each, length = each * hw;
    unsigned warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    float mean = stats[2 * blockIdx.x], r = stats[2 * blockIdx.x + 1];
    x += (size_t)blockIdx.x * length;
    dy += (size_t)blockIdx.x * length;
    float sum_a = 0, sum_b = 0;
    for (unsigned k = warp; k < each; k += warps) {
        unsigned channel = first + k, at = n * c + channel;
        float w = weight[channel], add = bias[channel];
        float scale = vector ? 1.f + vector[2 * n * c + channel] : 1.f, shift = vector ? vector[(2 * n + 1) * c + channel] : 0.f;
        float a = 0, b = 0;
        for (unsigned p = lane; p < hw; p += 32) {
            float normed = (x[k * hw + p] - mean) * r, du = dy[k * hw + p];
            if (silu) {
                float u = (normed * w + add) * scale + shift, s = sigmoid(u);
                du *= s * (1.f + u * (1.f - s));
            }
            a += du;
            b += du * normed;
        }
        a = warp_sum(a);
        b = warp_sum(b);
        if (lane == 0) {
            if (dweight) {
                dweight[at] = scale * b;
                dbias[at] = scale * a;
            }
            if (dvector) {
                PUT(dvector[2 * n * c + channel], w * b + add * a, more_vector);
                PUT(dvector[(2 * n + 1) * c + channel], a, more_vector);
            }
        }
        sum_a += w * scale * a;
        sum_b += w * scale * b;
    }
    if (lane == 0) {
        shares[0][warp] = sum_a;
        shares[1][warp] = sum_b;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        float sum = 0;
        for (unsigned k = 0; k < warps; k++) sum += shares[threadIdx.x][k];
        total[threadIdx.x] = sum / length;
    }
    __syncthreads();
    if (!dx) return;
    dx += (size_t)blockIdx.x * length;
    for (unsigned i = threadIdx.x; i < length; i += blockDim.x) {
        unsigned channel = first + i / hw;
        float w = weight[channel], scale = vector ? 1.f + vector[2 * n * c + channel] : 1.f;
        float normed = (x[i] - mean) * r, du = dy[i];
        if (silu) {
            float u = (normed * w + bias[channel]) * scale + (vector ? vector[(2 * n + 1) * c + channel] : 0.f), s = sigmoid(u);
            du *= s * (1.f + u * (1.f - s));
        }
        PUT(dx[i], r * (w * scale * du - total[0] - normed * total[1]), more);
    }
}

// One warp a row, in place.
__global__ void softmax(float* x, unsigned rows, unsigned length) {
    unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) >> 5, lane = threadIdx.x & 31;
    if (row >= rows) return;
    x += (size_t)row * length;
    float most = -3.4e38f, sum = 0;
    for (unsigned p = lane; p < length; p += 32) most = fmaxf(most, x[p]);
    for (int k = 16; k; k >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, k));
    for (unsigned p = lane; p < length; p += 32) {
        x[p] = __expf(x[p] - most);
        sum += x[p];
    }
    sum = 1.f / warp_sum(sum);
    for (unsigned p = lane; p < length; p += 32) x[p] *= sum;
}

// dp becomes the gradient of the scores.
__global__ void softmax_back(const float* p, float* dp, unsigned rows, unsigned length) {
    unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) >> 5, lane = threadIdx.x & 31;
    if (row >= rows) return;
    p += (size_t)row * length;
    dp += (size_t)row * length;
    float sum = 0;
    for (unsigned i = lane; i < length; i += 32) sum += p[i] * dp[i];
    sum = warp_sum(sum);
    for (unsigned i = lane; i < length; i += 32) dp[i] = p[i] * (dp[i] - sum);
}

// Small maps [h, w] to maps [2h, 2w]; count: of the large.
__global__ void upsample(const float* x, float* y, unsigned h, unsigned w, unsigned count) {
    EACH(i, count);
    unsigned column = i % (2 * w), line = i / (2 * w) % (2 * h), map = i / (4 * h * w);
    y[i] = x[(map * h + line / 2) * w + column / 2];
}

// count: of the small.
__global__ void upsample_back(const float* dy, float* dx, unsigned w, unsigned count, int more) {
    EACH(i, count);
    unsigned corner = i / w * 4 * w + i % w * 2;
    PUT(dx[i], dy[corner] + dy[corner + 1] + dy[corner + 2 * w] + dy[corner + 2 * w + 1], more);
}

// A part of the channels: part [n, length of part] from or to whole [n, length of whole] at `begin`, lengths in elements.
__global__ void put_part(const float* part, float* whole, unsigned length, unsigned of, unsigned begin, unsigned count) {
    EACH(i, count);
    whole[i / length * of + begin + i % length] = part[i];
}

__global__ void take_part(const float* whole, float* part, unsigned length, unsigned of, unsigned begin, unsigned count, int more) {
    EACH(i, count);
    PUT(part[i], whole[i / length * of + begin + i % length], more);
}

// deep [n, c b b, h, w], channel (c b + dy) b + dx, and wide [n, c, h b, w b]; h and w are those of the deep map.
__device__ __forceinline__ unsigned wide_place(unsigned i, unsigned b, unsigned h, unsigned w) {
    unsigned x = i % w, y = i / w % h, q = i / (w * h), dx = q % b, dy = q / b % b, c = q / (b * b);
    return (c * h * b + y * b + dy) * w * b + x * b + dx;
}

__global__ void deepen(const float* wide, float* deep, unsigned b, unsigned h, unsigned w, unsigned count, int more) {
    EACH(i, count);
    PUT(deep[i], wide[wide_place(i, b, h, w)], more);
}

__global__ void widen(const float* deep, float* wide, unsigned b, unsigned h, unsigned w, unsigned count, int more) {
    EACH(i, count);
    unsigned place = wide_place(i, b, h, w);
    PUT(wide[place], deep[i], more);
}

// Maps [h, w] set into maps [oh, ow] of zeros at (at, at); count: of the framed.
__global__ void frame(const float* x, float* y, unsigned h, unsigned w, unsigned oh, unsigned ow, unsigned at, unsigned count) {
    EACH(i, count);
    unsigned column = i % ow - at, line = i / ow % oh - at, map = i / (oh * ow);
    y[i] = column < w && line < h ? x[(map * h + line) * w + column] : 0.f;
}

// count: of the unframed.
__global__ void unframe(const float* y, float* x, unsigned h, unsigned w, unsigned oh, unsigned ow, unsigned at, unsigned count, int more) {
    EACH(i, count);
    unsigned column = i % w + at, line = i / w % h + at, map = i / (h * w);
    PUT(x[i], line < oh && column < ow ? y[(map * oh + line) * ow + column] : 0.f, more);
}

__global__ void divide(const float* x, const float* by, float* y, unsigned each, unsigned count, int more) {
    EACH(i, count);
    PUT(y[i], x[i] / by[i / each], more);
}

__global__ void embed(const float* table, const unsigned* labels, float* y, unsigned dim, unsigned count) {
    EACH(i, count);
    y[i] = table[labels[i / dim] * dim + i % dim];
}

// One thread an entry of the table, the images in turn.
__global__ void embed_back(const float* dy, const unsigned* labels, float* table, unsigned dim, unsigned n, unsigned count) {
    EACH(i, count);
    float sum = 0;
    for (unsigned k = 0; k < n; k++)
        if (labels[k] == i / dim) sum += dy[k * dim + i % dim];
    table[i] += sum;
}
}
