// Executes a Jenkinsfile against objects that know the sections and steps that ours uses, and nothing else: whatever
// Jenkins would not know there is an error that names it. Prints what would be done, a line of JSON for each file.
//
// Usage: groovy local/jenkinsfile.groovy FILE... NAME=VALUE...     (values of the parameters)
//
// The limit: this is no Jenkins. That a plugin is installed, and that it takes these arguments, shows there only.

import groovy.json.JsonOutput
import org.codehaus.groovy.ast.expr.DeclarationExpression
import org.codehaus.groovy.ast.stmt.BlockStatement
import org.codehaus.groovy.ast.stmt.ExpressionStatement
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.customizers.SecureASTCustomizer

class Refused extends RuntimeException {
    Refused(String what) { super(what) }
}

/** A section: its `directives` are methods by name; all else is refused. */
class Section {
    String name
    Map directives
    Map values

    def invokeMethod(String directive, Object given) {
        def known = directives[directive]
        if (known == null) throw new Refused("${name} has no `${directive}`; known are ${directives.keySet().sort().join(', ')}")
        known(*(given as List))
    }

    def getProperty(String property) {
        if (values.containsKey(property)) return values[property]
        // `agent any` and the like read a name.
        throw new Refused("${name} has no value `${property}`")
    }

    void setProperty(String property, Object value) {
        throw new Refused("${name} sets no `${property}`")
    }

    static run(String name, Map directives, Map values, Closure body) {
        def section = new Section(name: name, directives: directives, values: values)
        def copy = body.rehydrate(section, section, section)
        copy.resolveStrategy = Closure.DELEGATE_ONLY
        copy.call()
    }
}

/** Where names are set: `NAME = 'value'`. */
class Assignments {
    Map values
    Map set = [:]

    def invokeMethod(String method, Object given) { throw new Refused("environment calls `${method}`, which is not known") }

    def getProperty(String property) {
        if (values.containsKey(property)) return values[property]
        throw new Refused("environment has no value `${property}`")
    }

    void setProperty(String property, Object value) {
        if (!(property ==~ /[A-Za-z_][A-Za-z0-9_]*/)) throw new Refused("environment: `${property}` is no name")
        if (!(value instanceof CharSequence)) throw new Refused("environment: ${property} is no text")
        set[property] = value.toString()
    }
}

class Parameters {
    Map values

    def getProperty(String name) {
        if (!values.containsKey(name)) throw new Refused("params has no `${name}`: the parameters declare none")
        values[name]
    }
}

class Check {
    Map given
    Map declared = [:]
    List done = []
    List stages = []
    Set once = []
    Map settings = [options: [], environment: [:], post: [:]]

    Map values() {
        [params: new Parameters(values: declared), env: [BUILD_URL: 'https://jenkins.example.com/1/', BUILD_NUMBER: '1']]
    }

    void single(String where) {
        if (!once.add(where)) throw new Refused("${where} stands twice")
    }

    static void only(String what, Map found, List known, List needed = []) {
        def unknown = found.keySet() - known
        if (unknown) throw new Refused("${what} knows no `${unknown.first()}`")
        def missing = needed - found.keySet()
        if (missing) throw new Refused("${what} needs `${missing.first()}`")
    }

    void timeout(Map found) {
        only('timeout', found, ['time', 'unit', 'activity'], ['time'])
        if (!(found.time instanceof Integer) || found.time <= 0) throw new Refused("timeout: ${found.time} is no time")
        if (!(found.get('unit', 'MINUTES') in ['SECONDS', 'MINUTES', 'HOURS', 'DAYS'])) throw new Refused("timeout: ${found.unit} is no unit")
    }

    Map steps(List log) {
        [
            sh   : { command ->
                if (!(command instanceof CharSequence)) throw new Refused('sh takes a line of shell')
                log << [sh: command.toString()]
            },
            echo : { text -> log << [echo: text.toString()] },
            input: { Map found ->
                only('input', found, ['message', 'ok', 'submitter'], ['message'])
                log << [input: found.message.toString()]
            },
            mail : { Map found ->
                only('mail', found, ['to', 'subject', 'body'], ['to', 'subject', 'body'])
                log << [mail: found.subject.toString(), to: found.to.toString()]
            },
        ]
    }

    void stage(String name, Closure body) {
        if (name in stages) throw new Refused("stage '${name}' stands twice")
        stages << name
        def (wanted, ran, options, log) = [true, false, [], []]
        Section.run("stage '${name}'", [
            when   : { Closure inner ->
                single("when of '${name}'")
                def asks = false
                Section.run('when', [expression: { Closure test ->
                    asks = true
                    def asked = test.rehydrate(this, this, this)
                    asked.delegate = new Section(name: 'expression', directives: [:], values: values())
                    asked.resolveStrategy = Closure.DELEGATE_ONLY
                    wanted = asked.call() as boolean
                }], values(), inner)
                if (!asks) throw new Refused("when of '${name}' asks for nothing")
            },
            options: { Closure inner ->
                single("options of '${name}'")
                Section.run('options', [
                    timeout: { Map found -> timeout(found); options << 'timeout' },
                    withAWS: { Map found ->
                        only('withAWS', found, ['role', 'roleAccount', 'roleSessionName', 'duration', 'region'], ['role', 'duration'])
                        if (found.duration < 900 || found.duration > 3600) throw new Refused("withAWS: a role for ${found.duration} s")
                        options << 'withAWS'
                    },
                ], values(), inner)
            },
            steps  : { Closure inner ->
                single("steps of '${name}'")
                ran = true
                Section.run('steps', steps(log), values(), inner)
            },
        ], values(), body)
        if (!ran) throw new Refused("stage '${name}' has no steps")
        if (!('timeout' in options)) throw new Refused("stage '${name}' has no timeout")
        if (!log) throw new Refused("stage '${name}' does nothing")
        if (wanted) done << [stage: name, options: options, steps: log]
    }

    void pipeline(Closure body) {
        single('pipeline')
        Section.run('pipeline', [
            agent      : { inner ->
                single('agent')
                if (!(inner instanceof Closure)) throw new Refused('agent names a label')
                Section.run('agent', [label: { String label -> single('label') }], values(), inner)
            },
            parameters : { Closure inner ->
                single('parameters')
                Section.run('parameters', [
                    choice: { Map found ->
                        only('choice', found, ['name', 'choices', 'description'], ['name', 'choices', 'description'])
                        if (!found.choices) throw new Refused("${found.name} has no choices")
                        def value = given[found.name] ?: found.choices.first()
                        if (!(value in found.choices)) throw new Refused("${found.name} may not be `${value}`")
                        declared[found.name] = value
                    },
                    string: { Map found ->
                        only('string', found, ['name', 'defaultValue', 'description', 'trim'], ['name', 'defaultValue', 'description'])
                        declared[found.name] = given[found.name] ?: found.defaultValue
                    },
                ], values(), inner)
            },
            options    : { Closure inner ->
                single('options')
                def note = { String name -> { Object[] ignored -> settings.options << name } }
                Section.run('options', [
                    disableConcurrentBuilds: note('disableConcurrentBuilds'),
                    timestamps             : note('timestamps'),
                    timeout                : { Map found -> timeout(found); settings.options << 'timeout' },
                    buildDiscarder         : note('buildDiscarder'),
                    logRotator             : { Map found -> only('logRotator', found, ['numToKeepStr', 'daysToKeepStr']); found },
                ], values(), inner)
            },
            environment: { Closure inner ->
                single('environment')
                def assignments = new Assignments(values: values())
                def copy = inner.rehydrate(assignments, assignments, assignments)
                copy.resolveStrategy = Closure.DELEGATE_ONLY
                copy.call()
                settings.environment = assignments.@set
            },
            stages     : { Closure inner ->
                single('stages')
                Section.run('stages', [stage: { String name, Closure inside -> stage(name, inside) }], values(), inner)
            },
            post       : { Closure inner ->
                single('post')
                def condition = { String name -> { Closure inside ->
                    single(name)
                    def log = []
                    Section.run(name, steps(log), values(), inside)
                    settings.post[name] = log
                } }
                def names = ['always', 'success', 'failure', 'unsuccessful', 'aborted', 'unstable', 'cleanup']
                Section.run('post', names.collectEntries { [it, condition(it)] }, values(), inner)
            },
        ], values(), body)
        def missing = ['agent', 'parameters', 'options', 'stages', 'post'].find { !(it in once) }
        if (missing) throw new Refused("pipeline has no ${missing}")
        missing = ['disableConcurrentBuilds', 'timeout'].find { !(it in settings.options) }
        if (missing) throw new Refused("options lack ${missing}")
        if (!settings.post.success) throw new Refused('nobody is told of success')
        if (!(settings.post.failure || settings.post.unsuccessful || settings.post.always)) throw new Refused('nobody is told of failure')
    }
}

abstract class PipelineScript extends Script {
    def invokeMethod(String name, Object given) {
        if (name != 'pipeline') throw new Refused("a Jenkinsfile has no `${name}`")
        binding.getVariable('check').pipeline(*(given as List))
    }
}

/** What one file would do with these parameters; an error is its outcome. */
def outcome(String path, Map given) {
    def check = new Check(given: given)
    try {
        def configuration = new CompilerConfiguration(scriptBaseClass: PipelineScript.name)
        // Sections hold directives and no program: no `if`, no loop, no variable.
        configuration.addCompilationCustomizers(new SecureASTCustomizer(
            statementsWhitelist: [BlockStatement, ExpressionStatement], expressionsBlacklist: [DeclarationExpression]))
        def shell = new GroovyShell(this.class.classLoader, new Binding(check: check), configuration)
        shell.parse(new File(path).text, 'Pipeline.groovy').run()
        if (!('pipeline' in check.once)) throw new Refused('the file has no pipeline')
        [stages: check.done, parameters: check.declared] + check.settings
    } catch (Refused | MissingMethodException | MissingPropertyException | org.codehaus.groovy.control.CompilationFailedException error) {
        [error: error.message]
    }
}

def (parameters, files) = args.split { it =~ /^[A-Z_]+=/ }
def outcomes = files.collect { outcome(it, parameters.collectEntries { it.split('=', 2) as List }) }
outcomes.each { println JsonOutput.toJson(it) }
System.exit(outcomes.any { it.error } ? 1 : 0)
