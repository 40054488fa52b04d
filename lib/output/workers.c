/* SPDX-License-Identifier: MIT */
#include "output/workers.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS_MAX 32
#define RING_TRIES 100

struct workers {
	pthread_t thread[THREADS_MAX];
	unsigned threads;
	bool started;
	int bell;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t work;
	struct xfer_list todo, finished;
	unsigned ready, wanted; /* finished, and as many as are waited for; 0: nobody waits */
	bool end;
};

static void *work(void *arg)
{
	struct workers *w = arg;
	struct xfer *job;

	pthread_mutex_lock(&w->lock);
	while (!w->end) {
		job = xfer_take(&w->todo);
		if (!job) {
			pthread_cond_wait(&w->work, &w->lock);
			continue;
		}
		pthread_mutex_unlock(&w->lock);
		job->run(job);
		pthread_mutex_lock(&w->lock);
		xfer_append(&w->finished, job);
		if (++w->ready == w->wanted)
			workers_ring(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static unsigned processors(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return (unsigned)min_u64((unsigned)n, THREADS_MAX);
}

struct workers *workers_new(void)
{
	struct workers *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	w->bell = -1;
	return w;
}

static void start(struct workers *w)
{
	unsigned want = processors();

	w->started = true;
	w->bell = eventfd(0, EFD_CLOEXEC);
	while (w->bell >= 0 && w->threads < want &&
	       thread_start(&w->thread[w->threads], work, w) == 0)
		w->threads++;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->end = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->threads; i++)
		pthread_join(w->thread[i], NULL);
	if (w->bell >= 0)
		close(w->bell);
	pthread_cond_destroy(&w->work);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void workers_put(struct workers *w, struct xfer *job)
{
	if (!w->started)
		start(w);
	if (!w->threads)
		job->run(job);
	pthread_mutex_lock(&w->lock);
	xfer_append(w->threads ? &w->todo : &w->finished, job);
	w->ready += !w->threads;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
}

struct xfer *workers_take(struct workers *w)
{
	struct xfer *job;

	pthread_mutex_lock(&w->lock);
	job = xfer_take_all(&w->finished);
	w->ready = w->wanted = 0;
	pthread_mutex_unlock(&w->lock);
	return job;
}

bool workers_want(struct workers *w, unsigned n)
{
	bool ready;

	pthread_mutex_lock(&w->lock);
	ready = w->ready >= n;
	w->wanted = ready ? 0 : n;
	pthread_mutex_unlock(&w->lock);
	return ready;
}

int workers_bell(const struct workers *w)
{
	return w->bell;
}

void workers_sleep(struct workers *w)
{
	uint64_t rung;

	while (read(w->bell, &rung, sizeof(rung)) < 0 && errno == EINTR)
		;
}

void workers_ring(struct workers *w)
{
	const uint64_t one = 1;

	/* who waits would wait for ever. It cannot fail twice: the counter does not overflow */
	for (int tries = 0; tries < RING_TRIES && write(w->bell, &one, sizeof(one)) < 0; tries++)
		;
}
