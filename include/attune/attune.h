/* Attune in C: exact fused attention, for any language that can call C.
 *
 *   #include <attune/attune.h>
 *
 *   const int64_t shape[4] = {2, 1024, 16, 128};  // B, S, H, D
 *   attune_tensor q = attune_tensor_contiguous(q_data, ATTUNE_F32, 4, shape);
 *   ... k, v, o likewise ...
 *   attune_attention_options options = {.struct_size = sizeof(options)};
 *   options.mask = ATTUNE_MASK_CAUSAL_BOTTOM_RIGHT;
 *   if (attune_attention(&q, &k, &v, &o, &options) != ATTUNE_OK) puts(attune_last_error());
 *
 * Rules of the house
 * - Every struct that may grow begins with struct_size: set it to sizeof the struct, the rest to
 *   zero, and then what you need. Zero always means "the default" or "absent". A program built
 *   against an older, smaller struct keeps working.
 * - Functions return an attune_status; attune_last_error() says what was wrong, with the values.
 * - A call that is refused writes nothing. Inputs are never written.
 * - No function throws or exits. All may be called from several threads at once.
 */
#ifndef ATTUNE_ATTUNE_H
#define ATTUNE_ATTUNE_H

#include <attune/export.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum attune_status {
  ATTUNE_OK = 0,
  ATTUNE_INVALID_ARGUMENT = 1, /* the values contradict each other or the contract */
  ATTUNE_UNSUPPORTED = 2,      /* meaningful, but no kernel here computes it */
  ATTUNE_OUT_OF_MEMORY = 3,
  ATTUNE_IO_ERROR = 4,
  ATTUNE_INTERNAL = 5,    /* a bug in Attune */
  ATTUNE_DEVICE_ERROR = 6 /* the GPU or its driver failed; the text has its words */
} attune_status;

/* Element types. f32, f16, bf16 and, forward, f8e4m3 are what attention computes on. */
enum {
  ATTUNE_F32 = 0,
  ATTUNE_F16 = 1,
  ATTUNE_BF16 = 2,
  ATTUNE_F64 = 3,
  ATTUNE_BOOL = 4, /* one byte, 0 or 1 */
  ATTUNE_I32 = 5,
  ATTUNE_I64 = 6,
  ATTUNE_U8 = 7,
  ATTUNE_F8E4M3 = 8 /* OCP E4M3: no infinities, NaN 0x7f and 0xff, at most 448; o is then bf16 */
};

#define ATTUNE_MAX_RANK 4

/* A view of memory that someone else owns. All zero: absent. Never grows. */
typedef struct attune_tensor {
  void* data;
  int32_t dtype;                    /* ATTUNE_F32 ... */
  int32_t rank;                     /* dimensions in use */
  int64_t shape[ATTUNE_MAX_RANK];   /* e.g. B, S, H, D */
  int64_t strides[ATTUNE_MAX_RANK]; /* in elements; 0 repeats, negative walks back */
} attune_tensor;

/* A row-major view; shape holds `rank` extents. A rank out of range gives an absent tensor. */
ATTUNE_API attune_tensor attune_tensor_contiguous(const void* data, int32_t dtype, int32_t rank,
                                                  const int64_t* shape);

/* ---- What happened ---------------------------------------------------------------------- */

/* "0.1.0" */
ATTUNE_API const char* attune_version(void);

/* Why the latest call on this thread that failed did so; "" before the first failure. Valid until
 * the next call that fails on this thread. Never NULL. */
ATTUNE_API const char* attune_last_error(void);

/* Frees a text that Attune returned as char*. NULL is fine. */
ATTUNE_API void attune_free(char* text);

/* ---- Plans: decide once, run often ------------------------------------------------------ */

/* Every tensor a problem can name; leave what it does not use zero. */
typedef struct attune_arguments {
  size_t struct_size;
  /* Inputs.                     dense               packed                paged */
  attune_tensor q;    /* [B, Sq, Hq, D]      [1, total_q, Hq, D] */
  attune_tensor k;    /* [B, Sk, Hkv, D]     [1, total_k, Hkv, D]  [pages, page_size, Hkv, D] */
  attune_tensor v;    /* as k, with Dv */
  attune_tensor bias; /* [B or 1, Hq or 1, Sq or 1, Sk or 1] */
  attune_tensor alibi_slopes; /* f32 [Hq] or [B, Hq] */
  attune_tensor sink;         /* f32 [Hq] */
  attune_tensor key_lengths;  /* i32 [B] */
  attune_tensor cu_seqlens_q; /* i32 [B + 1] */
  attune_tensor cu_seqlens_k; /* i32 [B + 1] */
  attune_tensor page_table;   /* i32 [B, Sk / page_size rounded up] */
  uint64_t dropout_seed;
  uint64_t dropout_offset;
  /* Outputs of forward, inputs of backward. */
  attune_tensor o;   /* as q, with Dv */
  attune_tensor lse; /* f32 [B, Hq, Sq], packed [Hq, total_q], padded [B, Hq, Sq up to 32s] */
  /* Backward: inputs ... */
  attune_tensor grad_o;
  attune_tensor grad_lse;
  /* ... and outputs, each in the shape of its tensor. */
  attune_tensor grad_q;
  attune_tensor grad_k;
  attune_tensor grad_v;
  attune_tensor grad_bias; /* f32, f16 or bf16 */
  attune_tensor grad_sink;
  attune_tensor grad_alibi_slopes;
  /* device=cuda. All tensors lie in memory that the device reads; the call returns when the work is
   * queued. */
  attune_tensor dropout_state; /* i64 [2], (seed, offset), read when the kernel runs */
  void* stream;                /* CUstream or cudaStream_t; NULL is the default stream */
  /* Problems with descale (q, k and v of f8e4m3): a number is what is stored times its scale. */
  attune_tensor q_scale; /* f32 [B, Hq] */
  attune_tensor k_scale; /* f32 [B, Hkv] */
  attune_tensor v_scale; /* f32 [B, Hkv] */
} attune_arguments;

/* Must call body(body_context, n) for every n in [0, workers), in any order and on any threads, and
 * return when all have returned. */
typedef void (*attune_body)(void* body_context, int32_t worker);
typedef void (*attune_executor)(void* context, int32_t workers, attune_body body,
                                void* body_context);

typedef struct attune_plan_options {
  size_t struct_size;
  int32_t threads;          /* 0: every core this process may use */
  const char* kernel;       /* NULL, or an id from `attune list` to force */
  attune_executor executor; /* NULL: the library's own threads */
  void* executor_context;   /* handed to executor; must outlive the plan */
  int32_t has_device_index; /* not 0: device_index counts, instead of the current GPU */
  int32_t device_index;     /* device=cuda: which GPU */
  const char* arch; /* attune_explain() alone: NULL, or as if there were a GPU such as "sm_86" */
} attune_plan_options;

typedef struct attune_plan attune_plan;

/* problem_text: e.g. "forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128 lse". options may be
 * NULL. On success *out is a plan to be freed with attune_plan_destroy(), else NULL. */
ATTUNE_API attune_status attune_plan_create(const char* problem_text,
                                            const attune_plan_options* options, attune_plan** out);
/* NULL is fine. */
ATTUNE_API void attune_plan_destroy(attune_plan* plan);

/* Bytes of scratch memory that a run needs; 0 for NULL. */
ATTUNE_API size_t attune_plan_workspace_bytes(const attune_plan* plan);
/* The id of the chosen kernel, and the problem as text; both live as long as the plan. "" for
 * NULL. */
ATTUNE_API const char* attune_plan_kernel(const attune_plan* plan);
ATTUNE_API const char* attune_plan_problem(const attune_plan* plan);
/* Candidates, reasons, tiles, threads, workspace. To be freed with attune_free(); NULL on
 * failure. */
ATTUNE_API char* attune_plan_explain(const attune_plan* plan);

/* The GPU that the plan is for; -1 on the CPU and for NULL. */
ATTUNE_API int32_t attune_plan_device_index(const attune_plan* plan);

/* device=cuda: compiles the kernel if need be and loads it into the current context (or the device's
 * primary one), so that no run has to. Else nothing. */
ATTUNE_API attune_status attune_plan_prepare(const attune_plan* plan);

/* Computes. workspace: at least attune_plan_workspace_bytes(), any alignment, device=cuda: device
 * memory; NULL to have it allocated (then workspace_bytes is ignored). One plan may run on several
 * threads at once, each with its own workspace. device=cuda: queues the work on arguments->stream. */
ATTUNE_API attune_status attune_plan_run(const attune_plan* plan, const attune_arguments* arguments,
                                         void* workspace, size_t workspace_bytes);

/* The candidates for a problem even when no kernel serves it. *out: to be freed with
 * attune_free(). */
ATTUNE_API attune_status attune_explain(const char* problem_text,
                                        const attune_plan_options* options, char** out);

/* ---- One call --------------------------------------------------------------------------- */

enum { ATTUNE_MASK_NONE = 0, ATTUNE_MASK_CAUSAL_TOP_LEFT = 1, ATTUNE_MASK_CAUSAL_BOTTOM_RIGHT = 2 };
enum { ATTUNE_DIAGONAL_BOTTOM_RIGHT = 0, ATTUNE_DIAGONAL_TOP_LEFT = 1 };
enum { ATTUNE_LSE_PLAIN = 0, ATTUNE_LSE_PADDED32 = 1 };
/* Whose random numbers dropout draws: cuRAND's, 32 bits an element; or FlashAttention-2's, 8 bits. */
enum { ATTUNE_DROPOUT_STREAM_CURAND = 0, ATTUNE_DROPOUT_STREAM_FA2 = 1 };
enum { ATTUNE_DEVICE_AUTOMATIC = 0, ATTUNE_DEVICE_CPU = 1, ATTUNE_DEVICE_CUDA = 2 };

/* All zero but struct_size: plain attention. */
typedef struct attune_attention_options {
  size_t struct_size;
  int32_t mask;       /* ATTUNE_MASK_... */
  int32_t diagonal;   /* of a window without causal mask: ATTUNE_DIAGONAL_... */
  int64_t offset;     /* moves the diagonal */
  int32_t has_window; /* not 0: window_left and window_right count; -1 is unbounded */
  int32_t has_scale;  /* not 0: scale counts, instead of 1 / sqrt(D) */
  int64_t window_left;
  int64_t window_right;
  double scale;
  double softcap; /* 0: none */
  double dropout; /* probability to drop, below 1 */
  uint64_t dropout_seed;
  uint64_t dropout_offset;
  attune_tensor bias; /* as in attune_arguments, and so on */
  attune_tensor alibi_slopes;
  attune_tensor sink;
  attune_tensor key_lengths;
  attune_tensor cu_seqlens_q; /* with max_seqlen_q, the longest length */
  attune_tensor cu_seqlens_k; /* with max_seqlen_k */
  int64_t max_seqlen_q;
  int64_t max_seqlen_k;        /* paged: 0 is all that the columns of the table reach */
  attune_tensor page_table;    /* i32 [B, columns]; k and v are [pages, page_size, Hkv, D] */
  attune_tensor lse;           /* written by forward when given, read by backward */
  int32_t lse_layout;          /* ATTUNE_LSE_... */
  int32_t deterministic;       /* not 0: same bits on every run and for every thread count */
  int32_t device;              /* ATTUNE_DEVICE_...; automatic is the CPU */
  int32_t threads;             /* 0: every core this process may use */
  attune_tensor dropout_state; /* ATTUNE_DEVICE_CUDA: as in attune_arguments, and the next */
  void* stream;
  int32_t has_device_index; /* as in attune_plan_options */
  int32_t device_index;
  attune_tensor q_scale; /* of f8e4m3, as in attune_arguments: all three or none */
  attune_tensor k_scale;
  attune_tensor v_scale;
  int32_t dropout_stream; /* ATTUNE_DROPOUT_STREAM_...; not looked at where dropout is 0 */
} attune_attention_options;

/* q [B, Sq, Hq, D], k [B, Sk, Hkv, D], v [B, Sk, Hkv, Dv] -> o [B, Sq, Hq, Dv]. options may be
 * NULL. Plans of the last calls are kept. */
ATTUNE_API attune_status attune_attention(const attune_tensor* q, const attune_tensor* k,
                                          const attune_tensor* v, const attune_tensor* o,
                                          const attune_attention_options* options);

/* The tensors of a backward pass. */
typedef struct attune_backward_tensors {
  size_t struct_size;
  attune_tensor q, k, v, o;
  attune_tensor grad_o;
  attune_tensor grad_lse;               /* may be absent */
  attune_tensor grad_q, grad_k, grad_v; /* written */
  attune_tensor grad_bias;              /* written when given, like the next two */
  attune_tensor grad_sink;
  attune_tensor grad_alibi_slopes;
} attune_backward_tensors;

/* options: those of the forward pass, with the LSE that it wrote. */
ATTUNE_API attune_status attune_attention_backward(const attune_backward_tensors* tensors,
                                                   const attune_attention_options* options);

/* ---- The oracle: float64, plain loops, slow --------------------------------------------- */

/* Room for one result. data NULL: not wanted; else count must be the number of its elements. */
typedef struct attune_doubles {
  double* data;
  size_t count;
} attune_doubles;

/* Row-major, each in the logical shape of its tensor in attune_arguments. */
typedef struct attune_oracle_result {
  size_t struct_size;
  attune_doubles o;
  attune_doubles lse; /* in the problem's layout; plain when it has none */
  attune_doubles grad_q, grad_k, grad_v;
  attune_doubles grad_bias;
  attune_doubles grad_sink;
  attune_doubles grad_alibi_slopes;
} attune_oracle_result;

enum {
  ATTUNE_ROUNDING_EXACT = 0, /* float64 */
  ATTUNE_ROUNDING_PLAIN = 1  /* the textbook computation in the problem's dtype */
};

/* Reads the inputs of `arguments` only (backward: neither o nor the LSE). */
ATTUNE_API attune_status attune_oracle_run(const char* problem_text,
                                           const attune_arguments* arguments, int32_t rounding,
                                           const attune_oracle_result* result);

#ifdef __cplusplus
}
#endif

#endif
