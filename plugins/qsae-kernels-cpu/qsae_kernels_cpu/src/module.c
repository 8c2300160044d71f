/* What the machine can do, and the name that makes this library an extension module.
 *
 * The functions are called through ctypes, which needs no Python header to build; so importing the library
 * as a module is not supported (the initialiser gives no module).
 */
#include <cpuid.h>

#include "common.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#define ARCH_REQ_XCOMP_PERM 0x1023
#define TILE_DATA 18
#endif

API void *PyInit__native(void) { return NULL; }

static unsigned saved_state(void) { /* XCR0: the register files that the system keeps for us */
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int tiles_allowed(void) { /* once per process; all its threads may use tiles then */
#ifdef __linux__
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#else
    return 0;
#endif
}

/* 0 nothing, 1 AVX2 + FMA + BMI2, 2 AVX-512 F/BW/VL/DQ, 3 and VNNI, 4 and AMX-INT8; no higher than `limit`. */
API int cpu_level(int limit) {
    unsigned a, b, c, d, states;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA)) return 0;
    states = saved_state();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((states & 0x6) != 0x6 || !(b & bit_AVX2) || !(b & bit_BMI2) || limit < 1) return 0;
    unsigned wanted = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if ((states & 0xe6) != 0xe6 || (b & wanted) != wanted || limit < 2) return 1;
    if (!(c & bit_AVX512VNNI) || limit < 3) return 2;
    if ((states & 0x60000) != 0x60000 || !(d & (1u << 24)) || !(d & (1u << 25)) || limit < 4) return 3;
    return tiles_allowed() ? 4 : 3;
}
