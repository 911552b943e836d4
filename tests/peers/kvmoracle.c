/* kvmoracle: an independent answer to the probe's question, by the kernel's own header.
 *
 * Runs 64-bit guest code with paging on through /dev/kvm and prints one line of JSON:
 *   {"class": "none", "step": "open", "errno": 2}
 *   {"class": "runs" | "emulated", "product": ..., "loops_per_s": ..., "native_loops_per_s": ..., "exit_ns": ...}
 * Build: gcc -O2 -Wall -Wextra -o kvmoracle kvmoracle.c
 * Exit:  0 for any answer; 1 where the guest ran wrongly.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { MEMORY = 0x200000, TABLES = 0x1000, CODE = 0x10000, EXITS = 500, EMULATED_RATIO = 20 };

/* mov rax,rcx; imul rax,rbx; out dx,eax; l: dec rcx; jnz l; out dx,eax; t: out dx,al; dec rdi; jnz t; hlt */
static const uint8_t program[] = {0x48, 0x89, 0xc8, 0x48, 0x0f, 0xaf, 0xc3, 0xef, 0x48, 0xff, 0xc9, 0x75,
                                  0xfb, 0xef, 0xee, 0x48, 0xff, 0xcf, 0x75, 0xfa, 0xf4};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* No answer but this one: KVM refused at a step. */
static int refused(const char *step) {
  printf("{\"class\": \"none\", \"step\": \"%s\", \"errno\": %d}\n", step, errno);
  return 0;
}

static double native_loops_per_s(void) {
  uint64_t count = 200000000, left = count;
  double start = now();
  __asm__ volatile("1: dec %0; jnz 1b" : "+r"(left));
  return count / (now() - start);
}

static int enter_long_mode(int vcpu, uint8_t *memory) {
  struct kvm_segment code = {.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  struct kvm_segment data = {.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
  struct kvm_sregs sregs;
  uint64_t tables[3] = {(TABLES + 0x1000) | 3, (TABLES + 0x2000) | 3, 0x83};

  for (int level = 0; level < 3; level++) memcpy(memory + TABLES + 0x1000 * level, &tables[level], 8);
  if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0) return -1;
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cr0 = 0x80050033; /* protection, paging */
  sregs.cr3 = TABLES;
  sregs.cr4 = 0x20;  /* physical address extension */
  sregs.efer = 0x500; /* long mode, enabled and active */
  return ioctl(vcpu, KVM_SET_SREGS, &sregs);
}

/* Run until the guest writes to its port or halts; the value it wrote. */
static uint32_t run_to(int vcpu, struct kvm_run *run, uint32_t reason) {
  uint32_t value = 0;
  if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != reason) {
    printf("{\"class\": \"wrong\", \"exit_reason\": %u, \"errno\": %d}\n", run->exit_reason, errno);
    exit(1);
  }
  if (reason == KVM_EXIT_IO) memcpy(&value, (uint8_t *)run + run->io.data_offset, run->io.size);
  return value;
}

int main(int argc, char **argv) {
  uint64_t loops = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000;
  uint64_t factor = argc > 2 ? strtoull(argv[2], NULL, 0) : 3;
  struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[256];
  } cpuid = {.head.nent = 256};
  struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rcx = loops, .rbx = factor, .rdi = EXITS, .rdx = 0x80};

  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) return refused("open");
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) return refused("create");
  int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  if (vcpu < 0) return refused("vcpu");

  uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
  struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (memory == MAP_FAILED || run == MAP_FAILED) return refused("memory");
  memcpy(memory + CODE, program, sizeof program);
  if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000) < 0 || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ||
      ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0 || ioctl(vcpu, KVM_SET_CPUID2, &cpuid) < 0 ||
      enter_long_mode(vcpu, memory) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
    return refused("setup");

  uint32_t product = run_to(vcpu, run, KVM_EXIT_IO);
  double start = now();
  run_to(vcpu, run, KVM_EXIT_IO);
  double rate = loops / (now() - start), native = native_loops_per_s();
  start = now();
  for (int i = 0; i < EXITS; i++) run_to(vcpu, run, KVM_EXIT_IO);
  double exit_ns = (now() - start) / EXITS * 1e9;
  run_to(vcpu, run, KVM_EXIT_HLT);

  printf("{\"class\": \"%s\", \"product\": %u, \"loops_per_s\": %.0f, \"native_loops_per_s\": %.0f, \"exit_ns\": %.0f}\n",
         native > rate * EMULATED_RATIO ? "emulated" : "runs", product, rate, native, exit_ns);
  return 0;
}
