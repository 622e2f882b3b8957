/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One system call of this process fails, chosen by the place in the code that makes it: the
 * call, C's callers and Python's. A seccomp filter sends the calls of the C library here, by a
 * signal; they are made from here, outside the filter's range, or fail. No tracer is needed.
 */
#define _GNU_SOURCE
#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_frame.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { SITES = 8192, WHERE = 232, C_CALLERS = 5, PYTHON_CALLERS = 6, TOLD = 3 };

/* In the sixth argument of a call that takes fewer: let it pass. */
#define PASS 0x50a4a6e1ULL

struct site {
	uint64_t key;
	uint32_t call;
	_Atomic uint32_t times;
	char where[WHERE];
};

/* Shared with whoever plans it, who has the same in struct's words. */
struct plan {
	uint64_t key;		/* 0: nothing fails */
	uint32_t nth;		/* from 1 */
	uint32_t call;		/* which that key is of; of no other the place is asked for */
	uint32_t record;
	uint32_t pad;
	_Atomic uint32_t seen;
	_Atomic uint32_t hit;
	struct site sites[SITES];
};

static struct plan *plan;
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* Made here, its address is outside the filter's range. */
long aegis_soak_call(long number, const long args[6]);
__asm__(".text\n"
	".globl aegis_soak_call\n"
	".type aegis_soak_call, @function\n"
	"aegis_soak_call:\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %r11\n"
	"	mov 0(%r11), %rdi\n"
	"	mov 8(%r11), %rsi\n"
	"	mov 16(%r11), %rdx\n"
	"	mov 24(%r11), %r10\n"
	"	mov 32(%r11), %r8\n"
	"	mov 40(%r11), %r9\n"
	"	syscall\n"
	"	ret\n"
	".size aegis_soak_call, .-aegis_soak_call\n");

static void mix(uint64_t *key, uint64_t value)
{
	*key = (*key ^ value) * 0x100000001b3ULL;
	*key ^= *key >> 29;
}

static const char *text_of(PyObject *text)
{
	return text && PyUnicode_IS_COMPACT_ASCII(text) ? (const char *)PyUnicode_1BYTE_DATA(text) : "?";
}

static struct _PyInterpreterFrame *innermost(void)
{
	PyThreadState *thread = PyGILState_GetThisThreadState();

	if (!thread)
		return NULL;
#if PY_VERSION_HEX < 0x030d0000
	return thread->cframe ? thread->cframe->current_frame : NULL;
#else
	return thread->current_frame;
#endif
}

static PyCodeObject *code_of(struct _PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX < 0x030d0000
	return frame->f_code;
#else
	return (PyCodeObject *)frame->f_executable;
#endif
}

/* The thread's own frames stand still while it is in a call, whoever has the lock. */
static void mix_python(uint64_t *key, char *where, size_t room)
{
	struct _PyInterpreterFrame *frame = innermost();
	const char *file, *base;
	size_t used = 0;
	int depth;

	where[0] = 0;
	for (depth = 0; frame && depth < PYTHON_CALLERS; frame = frame->previous) {
		PyCodeObject *code = code_of(frame);

		if (!code || !PyCode_Check(code))
			continue;
		file = text_of(code->co_filename);
		base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
		for (; *base; base++)
			mix(key, (unsigned char)*base);
		mix(key, code->co_firstlineno);
		mix(key, _PyInterpreterFrame_LASTI(frame));
		if (depth++ >= TOLD || used >= room)
			continue;
		base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
		used += snprintf(where + used, room - used, "%s%s:%s+%d", depth > 1 ? " < " : "", base,
				 text_of(code->co_name), (int)_PyInterpreterFrame_LASTI(frame));
	}
}

static void mix_c(uint64_t *key)
{
	/* This function, the handler, the signal's return and the library's wrapper come first. */
	enum { OURS = 3 };
	void *callers[OURS + C_CALLERS];
	int i, found = backtrace(callers, OURS + C_CALLERS);
	struct dl_find_object object;

	for (i = OURS; i < found; i++) {
		if (_dl_find_object(callers[i], &object))
			break;
		mix(key, (uint64_t)callers[i] - (uint64_t)object.dlfo_map_start);
	}
}

static void note(uint64_t key, uint32_t call, const char *where)
{
	uint32_t i, at;

	while (atomic_flag_test_and_set(&busy))
		;
	for (i = 0; i < SITES; i++) {
		at = (key + i) % SITES;
		if (!plan->sites[at].key) {
			plan->sites[at].key = key;
			plan->sites[at].call = call;
			strcpy(plan->sites[at].where, where);
		}
		if (plan->sites[at].key == key) {
			plan->sites[at].times++;
			break;
		}
	}
	atomic_flag_clear(&busy);
}

static int is_to_fail(const ucontext_t *context, uint32_t call)
{
	uint64_t key = 0xcbf29ce484222325ULL;
	char where[WHERE];

	mix(&key, call);
	if (call == SYS_bpf || call == SYS_prctl)
		mix(&key, context->uc_mcontext.gregs[REG_RDI]);
	if (call == SYS_ioctl || call == SYS_fcntl)
		mix(&key, context->uc_mcontext.gregs[REG_RSI]);
	mix_c(&key);
	mix_python(&key, where, sizeof(where));
	key |= !key;
	if (plan->record)
		note(key, call, where);
	if (key != plan->key || atomic_fetch_add(&plan->seen, 1) + 1 != plan->nth)
		return 0;
	plan->hit = 1;
	return 1;
}

/* Our signal stays unblocked: a blocked one would end the process. */
static long set_mask(ucontext_t *context)
{
	const greg_t *regs = context->uc_mcontext.gregs;
	const uint64_t *wanted = (const uint64_t *)regs[REG_RSI];
	uint64_t *before = (uint64_t *)regs[REG_RDX], mask;

	memcpy(&mask, &context->uc_sigmask, sizeof(mask));
	if (before)
		*before = mask;
	if (!wanted)
		return 0;
	switch (regs[REG_RDI]) {
	case SIG_BLOCK: mask |= *wanted; break;
	case SIG_UNBLOCK: mask &= ~*wanted; break;
	default: mask = *wanted;
	}
	mask &= ~(1ULL << (SIGSYS - 1));
	memcpy(&context->uc_sigmask, &mask, sizeof(mask));
	return 0;
}

static int shares_memory(const greg_t *regs, uint32_t call)
{
	const struct clone_args *arguments = (const struct clone_args *)regs[REG_RDI];

	if (call == SYS_vfork)
		return 1;
	if (call == SYS_clone3)
		return arguments->stack || arguments->flags & CLONE_VM;
	return call == SYS_clone && (regs[REG_RSI] || regs[REG_RDI] & CLONE_VM);
}

static void handle(int number, siginfo_t *info, void *given)
{
	ucontext_t *context = given;
	greg_t *regs = context->uc_mcontext.gregs;
	const long args[6] = { regs[REG_RDI], regs[REG_RSI], regs[REG_RDX],
			       regs[REG_R10], regs[REG_R8], regs[REG_R9] };
	uint32_t call = info->si_syscall;

	(void)number;
	if (call == SYS_rt_sigprocmask) {
		regs[REG_RAX] = set_mask(context);
	} else if (call == SYS_rt_sigaction && regs[REG_RDI] == SIGSYS) {
		regs[REG_RAX] = 0;
	} else if (call == SYS_rt_sigaction) {
		regs[REG_RAX] = aegis_soak_call(call, args);
	} else if (is_to_fail(context, call)) {
		regs[REG_RAX] = -EIO;
	} else if (shares_memory(regs, call)) {
		/* Two of us would be on this stack: made where it was, with a word for the filter. */
		regs[REG_R9] = PASS;
		regs[REG_RAX] = call;
		regs[REG_RIP] -= 2;
	} else {
		regs[REG_RAX] = aegis_soak_call(call, args);
	}
}

static int library_range(struct dl_phdr_info *object, size_t size, void *given)
{
	uint64_t *range = given;
	int i;

	(void)size;
	if (!strstr(object->dlpi_name, "/libc.so"))
		return 0;
	for (i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &object->dlpi_phdr[i];

		if (header->p_type == PT_LOAD && header->p_flags & PF_X) {
			range[0] = object->dlpi_addr + header->p_vaddr;
			range[1] = range[0] + header->p_memsz;
		}
	}
	return 1;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int filter(const uint64_t range[2], const uint32_t *left_out, uint32_t count)
{
	struct sock_filter code[64 + 2 * 64] = {
		/* A program that was executed since has another library: none of ours. */
		LOAD(instruction_pointer) , BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, range[0] >> 32, 1, 0), ALLOW,
		BPF_STMT(BPF_MISC | BPF_TXA, 0),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)range[0], 1, 0), ALLOW,
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)range[1], 0, 1), ALLOW,
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PASS, 0, 1), ALLOW,
		LOAD(nr),
	};
	const uint32_t wanted[3] = { plan->call, SYS_rt_sigprocmask, SYS_rt_sigaction };
	struct sock_fprog program = { .filter = code, .len = 14 };
	uint32_t i;

	if (count > 64 || range[0] >> 32 != range[1] >> 32)
		return -E2BIG;
	for (i = 0; i < count; i++) {
		code[program.len++] = (struct sock_filter)
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, left_out[i], 0, 1);
		code[program.len++] = (struct sock_filter)ALLOW;
	}
	for (i = 0; i < 3 && !plan->record; i++)
		code[program.len++] = (struct sock_filter)
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, wanted[i], 3 - i, 0);
	if (!plan->record)
		code[program.len++] = (struct sock_filter)ALLOW;
	code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
	/* root needs no no_new_privs, which scripts would inherit. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? -errno : 0;
}

/* From now on, by the plan in *fd*; *left_out*: the numbers of calls that never fail. */
int aegis_soak_arm(int fd, const uint32_t *left_out, uint32_t count)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER };
	uint64_t range[2] = { 0, 0 };
	void *first[1];

	plan = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (plan == MAP_FAILED)
		return -errno;
	close(fd);
	backtrace(first, 1);	/* it loads a library the first time */
	if (!dl_iterate_phdr(library_range, range))
		return -ENOENT;
	if (sigaction(SIGSYS, &action, NULL))
		return -errno;
	return filter(range, left_out, count);
}
