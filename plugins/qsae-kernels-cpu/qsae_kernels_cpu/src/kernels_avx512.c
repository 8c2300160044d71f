/* The float32 kernels on AVX-512: every function of the headers below, named ..._avx512. */
#include "lanes_avx512.h"

#include "products.h"
#include "lookup.h"
#include "candidates.h"
#include "compress.h"
#include "rotation.h"
#include "select.h"
#include "ternary.h"
#include "update.h"
