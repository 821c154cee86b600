# bash completion for shunt-agent: source <(shunt-agent completion bash)

_shunt_agent() {
	local current=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $current == -* ]] && words+=("$current")
	# With zsh as the login shell, there are descriptions behind colons.
	mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null | cut -d : -f 1)" -- "$current")
}

complete -F _shunt_agent shunt-agent
