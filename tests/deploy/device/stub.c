/* A stand-in for lce_benchmark_model as a program for the device's processor. The timings are invented. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
#ifndef __aarch64__
#error "compile it for ARM64"
#endif
  long runs = 0;
  const char *graph = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strncmp(argv[i], "--num_runs=", 11)) runs = atol(argv[i] + 11);
    if (!strncmp(argv[i], "--graph=", 8)) graph = argv[i] + 8;
  }
  FILE *file = graph ? fopen(graph, "rb") : NULL;
  if (!file) {
    fprintf(stderr, "ERROR: Could not open the model.\nERROR: Benchmarking failed.\n");
    return 1;
  }
  fclose(file);
  printf("INFO: this is a stub on ARM64; its timings are invented\n");
  printf("INFO: count=9 first=1 curr=1 min=1 max=1 avg=1 std=0\n\n");
  printf("INFO: count=%ld first=2.5e+06 curr=2.5e+06 min=2.23457e+06 max=3e+06 avg=2.5e+06 std=358\n", runs);
  return 0;
}
