/* A program outside Attune, in C99: one query that sees two keys, computed by hand below. */
#include <attune/attune.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  const float q_data[2] = {2, 0};
  const float k_data[4] = {1, 5, -1, 7};
  const float v_data[2] = {10, 20};
  float o_data[1] = {-1};
  const int64_t q_shape[4] = {1, 1, 1, 2};
  const int64_t k_shape[4] = {1, 2, 1, 2};
  const int64_t v_shape[4] = {1, 2, 1, 1};
  const int64_t o_shape[4] = {1, 1, 1, 1};
  const attune_tensor q = attune_tensor_contiguous(q_data, ATTUNE_F32, 4, q_shape);
  const attune_tensor k = attune_tensor_contiguous(k_data, ATTUNE_F32, 4, k_shape);
  const attune_tensor v = attune_tensor_contiguous(v_data, ATTUNE_F32, 4, v_shape);
  const attune_tensor o = attune_tensor_contiguous(o_data, ATTUNE_F32, 4, o_shape);

  attune_attention_options options = {.struct_size = sizeof(options)};
  options.has_scale = 1;
  options.scale = 0.5;
  if (attune_attention(&q, &k, &v, &o, &options) != ATTUNE_OK) {
    fprintf(stderr, "%s\n", attune_last_error());
    return 1;
  }
  /* Scores 1 and -1, so the first weight is 1 / (1 + exp(-2)). */
  const double first = 1 / (1 + exp(-2.0));
  const double want = 10 * first + 20 * (1 - first);
  printf("%.7f, by hand %.7f\n", o_data[0], want);
  if (fabs(o_data[0] - want) > 1e-5) return 1;

  /* A refusal is a status with a reason. */
  options.dropout = 1.5;
  if (attune_attention(&q, &k, &v, &o, &options) != ATTUNE_INVALID_ARGUMENT ||
      strstr(attune_last_error(), "1.5") == NULL) {
    fprintf(stderr, "dropout = 1.5: '%s'\n", attune_last_error());
    return 1;
  }

  attune_plan* plan = NULL;
  if (attune_plan_create("forward sq=1 sk=2 d=2 dv=1", NULL, &plan) != ATTUNE_OK) return 1;
  const int named = strlen(attune_plan_kernel(plan)) > 0;
  attune_plan_destroy(plan);
  return named ? 0 : 1;
}
