/* The float32 kernels on AVX2 with FMA: every function of the headers below, named ..._avx2. */
#include "lanes_avx2.h"

#include "products.h"
#include "lookup.h"
#include "candidates.h"
#include "compress.h"
#include "rotation.h"
#include "select.h"
#include "ternary.h"
#include "update.h"
