#ifndef ATTUNE_WRAPPED_ABI
#define ATTUNE_WRAPPED_ABI 1

#include <stddef.h>
#include <stdint.h>

/* What all programs written by `attune wrap` share; several may be included together. */

/* What functions return. */
enum {
  ATTUNE_WRAPPED_OK = 0,
  ATTUNE_WRAPPED_INVALID_ARGUMENT = 1, /* the values contradict each other or the program */
  ATTUNE_WRAPPED_UNSUPPORTED = 2,      /* there is nothing in the program for this device or size */
  ATTUNE_WRAPPED_OUT_OF_MEMORY = 3,
  ATTUNE_WRAPPED_IO_ERROR = 4,       /* a file is missing, or not the one that was wrapped */
  ATTUNE_WRAPPED_INTERNAL = 5,       /* a bug */
  ATTUNE_WRAPPED_DEVICE_ERROR = 6,   /* the driver failed; the text has its words */
  ATTUNE_WRAPPED_FUNCTION_FAILED = 7 /* a function of the user's returned something else than 0 */
};

enum {
  ATTUNE_WRAPPED_F32 = 0,
  ATTUNE_WRAPPED_F16 = 1,
  ATTUNE_WRAPPED_BF16 = 2,
  ATTUNE_WRAPPED_F64 = 3,
  ATTUNE_WRAPPED_BOOL = 4, /* a byte, 0 or 1 */
  ATTUNE_WRAPPED_I32 = 5,
  ATTUNE_WRAPPED_I64 = 6,
  ATTUNE_WRAPPED_U8 = 7,
  ATTUNE_WRAPPED_I8 = 8,
  ATTUNE_WRAPPED_I16 = 9,
  ATTUNE_WRAPPED_U16 = 10,
  ATTUNE_WRAPPED_U32 = 11,
  ATTUNE_WRAPPED_U64 = 12,
  ATTUNE_WRAPPED_F8E4M3 = 13,
  ATTUNE_WRAPPED_F8E5M2 = 14
};

#define ATTUNE_WRAPPED_MAX_RANK 8

/* Memory of the caller's: on the device that runs the program. */
typedef struct attune_wrapped_tensor {
  void* data;
  int32_t dtype; /* ATTUNE_WRAPPED_F32 ... */
  int32_t rank;
  int64_t shape[ATTUNE_WRAPPED_MAX_RANK];
  int64_t strides[ATTUNE_WRAPPED_MAX_RANK]; /* in elements */
} attune_wrapped_tensor;

/* A row-major tensor; shape holds `rank` extents, of which more than ATTUNE_WRAPPED_MAX_RANK are left out. */
static inline attune_wrapped_tensor attune_wrapped_contiguous(void* data, int32_t dtype,
                                                              int32_t rank, const int64_t* shape) {
  attune_wrapped_tensor tensor;
  int64_t stride = 1;
  int32_t axis;
  tensor.data = data;
  tensor.dtype = dtype;
  tensor.rank = rank > ATTUNE_WRAPPED_MAX_RANK ? ATTUNE_WRAPPED_MAX_RANK : rank;
  for (axis = 0; axis < ATTUNE_WRAPPED_MAX_RANK; ++axis) {
    tensor.shape[axis] = 0;
    tensor.strides[axis] = 0;
  }
  for (axis = tensor.rank - 1; axis >= 0; --axis) {
    tensor.shape[axis] = shape[axis];
    tensor.strides[axis] = stride;
    stride *= shape[axis] > 0 ? shape[axis] : 1;
  }
  return tensor;
}

/* For tools, which know a program's arguments only when they run: kind 0 is an input, 1 an output, 2 a
 * scalar, which comes as a tensor of rank 0 in the host's memory. */
typedef struct attune_wrapped_argument {
  const char* name;
  int32_t kind;
  int32_t dtype;
  int32_t rank;
} attune_wrapped_argument;

typedef struct attune_wrapped_package {
  size_t struct_size;
  const char* name;
  const char* device; /* "cuda" or "cpu" */
  const attune_wrapped_argument* arguments;
  size_t argument_count;
  int (*create)(const char* folder, int device_index, void** instance);
  int (*run)(void* instance, const attune_wrapped_tensor* arguments, void* workspace,
             size_t workspace_bytes, void* stream);
  void (*destroy)(void* instance);
  const char* (*last_error)(void);
} attune_wrapped_package;

#endif
